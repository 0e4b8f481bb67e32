"use strict";
// Accuracy with its intervals, and bars for latency and size: a line for each variant.
report.drawAccuracy = (place, { points, alt }) => {
  const names = [...new Set(points.map((p) => p.variant))];
  const marks = [];
  for (const [where, dy] of [["deployed", -7], ["Keras", 7]]) {
    const own = points.filter((p) => p.where === where);
    const look = { y: "variant", dy, stroke: (p) => report.color(p.variant), title: "text" };
    marks.push(
      Plot.ruleY(own, { ...look, x1: "low", x2: "high", strokeWidth: 2, strokeOpacity: 0.55 }),
      Plot.dot(own, { ...look, x: "value", r: 4.5, strokeWidth: 2, fill: where === "Keras" ? "var(--surface)" : (p) => report.color(p.variant) }),
      Plot.text(own, { y: "variant", dy, x: "high", text: "label", textAnchor: "start", dx: 6, fill: "currentColor" }),
    );
  }
  report.put(place, alt, {
    height: 50 * names.length + 34, marginLeft: 62, marginRight: 50, marginTop: 4, marginBottom: 30,
    x: { label: null, grid: true, nice: true, ticks: 5 }, y: { label: null, domain: names, tickSize: 0 }, marks,
  });
};

report.drawBars = (place, { bars, alt }) => {
  const whiskers = bars.filter((bar) => bar.p90 !== undefined);
  report.put(place, alt, {
    height: 34 * bars.length + 34, marginLeft: 62, marginRight: 62, marginTop: 4, marginBottom: 30,
    x: { label: null, grid: true, ticks: 4 }, y: { label: null, domain: bars.map((bar) => bar.variant), tickSize: 0 },
    marks: [
      Plot.barX(bars, { x: "value", y: "variant", fill: (bar) => report.color(bar.variant), insetTop: 5, insetBottom: 5, title: "text" }),
      Plot.ruleY(whiskers, { y: "variant", x1: "value", x2: "p90", stroke: "currentColor", strokeWidth: 1.2 }),
      Plot.tickX(whiskers, { y: "variant", x: "p90", stroke: "currentColor", strokeWidth: 1.2, insetTop: 10, insetBottom: 10 }),
      Plot.text(bars, { y: "variant", x: (bar) => Math.max(bar.value, bar.p90 ?? 0), text: "label", textAnchor: "start", dx: 6, fill: "currentColor" }),
      Plot.ruleX([0], { stroke: "var(--muted)" }),
    ],
  });
};
