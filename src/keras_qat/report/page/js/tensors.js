"use strict";
// One tensor: its facts, and the histogram of its magnitudes with the clip, where the range ends.
report.drawTensor = (place, facts, tensor) => {
  facts.replaceChildren(...tensor.facts.map(([term, text]) => {
    const row = document.createElement("div");
    row.append(report.element("dt", term), report.element("dd", text));
    return row;
  }));
  place.dataset.tensor = tensor.name;
  if (tensor.histogram === null) return place.replaceChildren();
  const width = tensor.largest / tensor.histogram.length;
  const bars = tensor.histogram.map((share, i) => ({ x1: i * width, x2: (i + 1) * width, share })).filter((bar) => bar.share > 0);
  const floor = 10 ** Math.floor(Math.log10(d3.min(bars, (bar) => bar.share)));
  const end = Math.max(tensor.largest, tensor.clip);
  const late = tensor.clip > end / 2;
  report.put(place, tensor.alt, {
    height: 300, marginLeft: 58, marginRight: 14, marginTop: 30, marginBottom: 38,
    x: { label: "magnitude →", domain: [0, end * 1.02], ticks: 6 },
    y: { label: "↑ share of the numbers", type: "log", domain: [floor, 1], grid: true, ticks: d3.range(Math.round(Math.log10(floor)), 1).map((power) => 10 ** power), tickFormat: (y) => `${+(100 * y).toPrecision(1)}%` },
    marks: [
      Plot.rect(bars, { x1: "x1", x2: "x2", y1: floor, y2: "share", insetRight: 0.5, fill: (bar) => (bar.x1 >= tensor.clip ? "var(--bad)" : "var(--accent)") }),
      Plot.ruleX([tensor.clip], { stroke: "var(--bad)", strokeWidth: 2 }),
      Plot.text([tensor.clip], { x: (clip) => clip, frameAnchor: "top", dy: -14, text: () => tensor.clip_label, textAnchor: late ? "end" : "start", fill: "var(--bad)", fontWeight: 600 }),
    ],
  });
};
