"use strict";
// SQNR along the graph: what each tensor and kernel costs alone, and all errors that have arrived.
report.drawLayers = (place, { points, bad, alt }, choose) => {
  const tensors = points.filter((p) => p.kind === "tensor" && p.alone !== null);
  const kernels = points.filter((p) => p.kind === "kernel" && p.alone !== null);
  // The worst are named where there is room: the very worst always, others if bad and far enough from those named.
  const worst = [];
  for (const p of d3.sort(points.filter((one) => one.worst !== null && one.worst < 4 && one.alone !== null), (one) => one.worst)) {
    const room = place.clientWidth > 600 && p.alone < bad && worst.every((one) => Math.abs(one.place - p.place) > 0.16 * points.length);
    if (room || !worst.length) worst.push(p);
  }
  const label = (some, textAnchor) => Plot.text(some, {
    x: "place", y: "alone", text: "label", textAnchor, dy: 14, fill: "currentColor", stroke: "var(--surface)", strokeWidth: 4,
  });
  const edge = points.length * 0.2;
  const side = (p) => (p.place < edge ? "start" : p.place > points.length - edge ? "end" : "middle");
  const chart = report.put(place, alt, {
    height: 320, marginLeft: 44, marginRight: 14, marginTop: 24, marginBottom: 30,
    x: { label: "in the order of the graph →", ticks: [], labelAnchor: "right" },
    y: { label: "↑ SQNR, dB", grid: true, nice: true },
    marks: [
      Plot.ruleY([bad], { stroke: "var(--bad)", strokeDasharray: "4 4" }),
      Plot.line(points.filter((p) => p.cumulative !== null), { x: "place", y: "cumulative", stroke: "var(--muted)", strokeWidth: 1.5 }),
      Plot.dot(kernels, { x: "place", y: "alone", symbol: "square", r: 3.2, stroke: (p) => (p.alone < bad ? "var(--bad)" : "var(--ptq)"), strokeWidth: 1.4 }),
      Plot.dot(tensors, { x: "place", y: "alone", r: 3.6, fill: (p) => (p.alone < bad ? "var(--bad)" : "var(--accent)") }),
      ...["start", "middle", "end"].map((anchor) => label(worst.filter((p) => side(p) === anchor), anchor)),
      Plot.dot([...tensors, ...kernels], Plot.pointer({ x: "place", y: "alone", r: 6, stroke: "currentColor", maxRadius: 60 })),
      Plot.tip([...tensors, ...kernels], Plot.pointer({ x: "place", y: "alone", title: "text", maxRadius: 60, fill: "var(--surface)", stroke: "var(--line)" })),
    ],
  });
  chart.addEventListener("click", () => { if (chart.value?.tensor) choose(chart.value.tensor); });
};
