"use strict";
// Each run's article: its charts at its width, the placement once it comes into view, and which run is shown.
report.start = (article, data) => {
  const one = (selector) => article.querySelector(selector);
  const chart = (name) => one(`[data-chart="${name}"]`);
  const tensorSelect = one("select.tensor");

  const drawTensor = () => {
    if (tensorSelect) report.drawTensor(chart("tensor"), one(".tensor-facts"), data.tensors[tensorSelect.value]);
  };
  const choose = (name) => {
    const i = data.tensors.findIndex((tensor) => tensor.name === name);
    if (i < 0) return;
    tensorSelect.value = i;
    drawTensor();
    tensorSelect.closest("section").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    tensorSelect.focus({ preventScroll: true });
  };
  const variant = () => one("input[type=radio]:checked")?.value ?? data.layers[0].variant;
  const drawLayers = () => {
    if (!data.layers.length) return;
    for (const part of article.querySelectorAll(".variant")) part.hidden = part.dataset.variant !== variant();
    report.drawLayers(chart("layers"), data.layers.find((it) => it.variant === variant()), choose);
  };
  const draw = () => {
    article.querySelectorAll('[data-chart="accuracy"]').forEach((place, i) => report.drawAccuracy(place, data.accuracy[i]));
    for (const name of ["deployed", "keras", "size"]) report.drawBars(chart(name), data[name]);
    drawLayers();
    drawTensor();
    if (data.training) report.drawTraining(chart("training"), data.training);
  };

  tensorSelect?.addEventListener("change", drawTensor);
  for (const radio of article.querySelectorAll("input[type=radio]")) radio.addEventListener("change", drawLayers);
  for (const button of article.querySelectorAll("button[data-tensor]")) button.addEventListener("click", () => choose(button.dataset.tensor));
  let width = 0;
  // A hidden run has no width; it is drawn when it is shown.
  new ResizeObserver(() => {
    if (article.clientWidth === width) return;
    width = article.clientWidth;
    if (width) requestAnimationFrame(draw);
  }).observe(article);
  if (data.graph) {
    const section = one(".graph").closest("section");
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      report.drawGraph(section, data.graph, choose);
    }, { rootMargin: "200px" });
    seen.observe(section);
  }
};

report.show = (key) => {
  const articles = [...document.querySelectorAll("article.run")];
  if (!articles.some((article) => article.id === key)) return;
  for (const article of articles) article.hidden = article.id !== key;
  const select = document.getElementById("choose");
  if (select) select.value = key;
};

for (const data of report.runs) report.start(document.getElementById(data.key), data);
document.getElementById("choose")?.addEventListener("change", (event) => report.show(event.target.value));
const followHash = () => {
  const key = location.hash.slice(1).split("-")[0];
  if (!key) return;
  report.show(key);
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
};
addEventListener("hashchange", followHash);
followHash();
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("article:not([hidden]) details")) part.open = true; });
