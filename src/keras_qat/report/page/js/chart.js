"use strict";
// What all charts share: the data, and the one way a chart gets into the page.
const report = {
  runs: JSON.parse(document.getElementById("data").textContent),

  // Draw with Plot at the width of its place; `alt` says to a screen reader what the picture shows.
  put(place, alt, options) {
    const width = Math.max(240, Math.floor(place.clientWidth));
    const chart = Plot.plot({ width, color: { type: "identity" }, style: { fontSize: "12px", overflow: "visible" }, ...options });
    chart.setAttribute("role", "img");
    chart.setAttribute("aria-label", alt);
    place.replaceChildren(chart);
    return chart;
  },

  // An element with text. Text only: names of layers are never read as HTML.
  element(name, text, attributes = {}) {
    const made = document.createElement(name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  },

  color(variant) {
    return { Baseline: "var(--float)", PTQ: "var(--ptq)", QAT: "var(--qat)" }[variant] ?? "var(--other)";
  },
};
