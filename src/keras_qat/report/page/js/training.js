"use strict";
// Fine-tuning by epochs: a small chart for each thing that moved, the best epoch marked in all.
report.drawTraining = (place, { panels, best }) => {
  const figures = place.children.length === panels.length ? [...place.children] : panels.map((panel) => {
    const figure = document.createElement("figure");
    figure.append(report.element("figcaption", panel.title), report.element("div", "", { class: "chart" }));
    return figure;
  });
  place.replaceChildren(...figures);
  const last = d3.max(panels, (panel) => d3.max(panel.points, (p) => p.epoch));
  const color = (p) => (p.series === "selection" ? "var(--accent)" : "var(--muted)");
  panels.forEach(({ points, alt }, i) => report.put(figures[i].lastChild, alt, {
    height: 190, marginLeft: 52, marginRight: 12, marginTop: 12, marginBottom: 34,
    x: { label: "epoch", domain: [0, Math.max(last, 1)], ticks: d3.range(0, last + 1, Math.ceil((last + 1) / 8)), tickFormat: "d" },
    y: { label: null, grid: true, nice: true, ticks: 5, tickFormat: (y) => (y !== 0 && Math.abs(y) < 1e-3 ? `${(+y.toPrecision(2)).toExponential()}` : `${+y.toPrecision(4)}`) },
    marks: [
      ...(best === null ? [] : [Plot.ruleX([best], { stroke: "var(--qat)", strokeWidth: 1.5, strokeDasharray: "4 3" })]),
      Plot.line(points, { x: "epoch", y: "value", z: "series", stroke: color, strokeWidth: 1.6 }),
      Plot.dot(points, { x: "epoch", y: "value", fill: color, r: 2.8, title: (p) => `${p.series}, epoch ${p.epoch}: ${+p.value.toPrecision(5)}` }),
    ],
  }));
};
