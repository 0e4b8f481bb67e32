"use strict";
// Choosing a box of the placement, by click, search, button or key; and what is said about it.
report.wirePanel = (section, view, choose) => {
  const { node, edge, boxes, arrows } = view;
  const panel = section.querySelector(".panel");
  const canvas = section.querySelector(".canvas");
  const find = section.querySelector(".find");
  const place = new Map(boxes.map((box, i) => [box.key, i]));

  const flows = (title, some, end) => {
    if (!some.length) return [];
    const list = document.createElement("ul");
    for (const arrow of some) {
      const item = report.element("li", "", { class: arrow.quantized ? "quantized" : "float" });
      const button = report.element("button", boxes[place.get(arrow[end])].lines[0], { type: "button", class: "link" });
      button.addEventListener("click", () => select(place.get(arrow[end])));
      item.append(button, report.element("span", `: ${arrow.quantized ? "quantized" : "float"}. ${arrow.tooltip}`));
      list.append(item);
    }
    return [report.element("h4", title), list];
  };

  const select = (i, move = true) => {
    view.at = i;
    const box = boxes[i];
    node.classed("chosen", (_, k) => k === i);
    edge.classed("chosen", (arrow) => arrow.source === box.key || arrow.sink === box.key);
    if (move) view.show(i);
    const parts = box.lines.map((line, k) => report.element(k ? "p" : "h4", line));
    if (box.cost) parts.push(report.element("p", `SQNR alone ${box.cost}`));
    parts.push(...box.tooltip.split("\n").filter(Boolean).map((reason) => report.element("p", reason, { class: "reason" })));
    if (box.tensor !== null) {
      const button = report.element("button", "Look at the tensor", { type: "button" });
      button.addEventListener("click", () => choose(box.tensor));
      parts.push(button);
    }
    parts.push(...flows("In", arrows.filter((arrow) => arrow.sink === box.key), "source"));
    parts.push(...flows("Out", arrows.filter((arrow) => arrow.source === box.key), "sink"));
    panel.replaceChildren(...parts);
    panel.scrollTop = 0;
  };

  const step = (by) => select((view.at + by + boxes.length) % boxes.length);
  const seek = (from) => {
    const wanted = find.value.trim().toLowerCase();
    const hits = (box) => wanted !== "" && [...box.lines, box.pair ? box.tooltip : ""].some((text) => text.toLowerCase().includes(wanted));
    node.classed("hit", hits);
    const order = d3.range(boxes.length).map((k) => (from + k) % boxes.length);
    const found = order.find((i) => hits(boxes[i]));
    find.setAttribute("aria-invalid", wanted !== "" && found === undefined);
    if (found !== undefined) select(found);
  };

  const actions = {
    previous: () => step(view.at < 0 ? 0 : -1), next: () => step(1),
    in: () => view.zoomBy(1.4), out: () => view.zoomBy(1 / 1.4), whole: view.whole,
  };
  const keys = {
    n: actions.next, p: actions.previous, "+": actions.in, "=": actions.in, "-": actions.out, 0: actions.whole,
    ArrowUp: () => view.moveBy(0, 80), ArrowDown: () => view.moveBy(0, -80), ArrowLeft: () => view.moveBy(80, 0), ArrowRight: () => view.moveBy(-80, 0),
  };
  node.on("click", (_, box) => select(place.get(box.key), false));
  for (const button of section.querySelectorAll("[data-do]")) button.addEventListener("click", actions[button.dataset.do]);
  canvas.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  find.addEventListener("input", () => seek(0));
  find.addEventListener("keydown", (event) => { if (event.key === "Enter") seek(view.at + 1); });
  select(0, false);
  section.querySelector("datalist").replaceChildren(...boxes.filter((box) => !box.pair).map((box) => report.element("option", "", { value: box.lines[0].replace(/ \([^()]*\)$/, "") })));
};
