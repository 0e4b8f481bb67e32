"use strict";
// The placement: boxes and arrows, drawn once, then moved and zoomed as a whole.
report.drawGraph = async (section, { boxes, arrows, alt }, choose) => {
  const canvas = section.querySelector(".canvas");
  const line = (text) => (text.length > 36 ? `${text.slice(0, 35)}…` : text);
  const sized = boxes.map((box) => ({
    key: box.key,
    width: 7 * d3.max([...box.lines, box.cost ?? ""], (text) => line(text).length) + 18,
    height: 15 * (box.lines.length + (box.cost ? 1 : 0)) + 12,
  }));
  canvas.firstElementChild.textContent = "Laying out the graph …";
  const laid = await report.layOut({ boxes: sized, arrows: arrows.map(({ source, sink }) => ({ source, sink })) });

  const svg = d3.create("svg").attr("role", "img").attr("aria-label", alt);
  svg.append("defs").selectAll("marker").data(["quantized", "float"]).join("marker")
    .attr("id", (flow) => `${section.id}-${flow}`).attr("class", (flow) => flow)
    .attr("viewBox", "0 0 8 8").attr("refX", 7).attr("refY", 4).attr("markerWidth", 6).attr("markerHeight", 6).attr("orient", "auto")
    .append("path").attr("d", "M0,0L8,4L0,8Z");
  const all = svg.append("g");

  const path = d3.line((p) => p.x, (p) => p.y).curve(d3.curveBasis);
  const edge = all.selectAll("g.arrow").data(arrows).join("g")
    .attr("class", (arrow) => `arrow ${arrow.quantized ? "quantized" : "float"}`);
  edge.append("path").attr("class", "hit").attr("d", (_, i) => path(laid.arrows[i]));
  edge.append("path").attr("d", (_, i) => path(laid.arrows[i]))
    .attr("marker-end", (arrow) => `url(#${section.id}-${arrow.quantized ? "quantized" : "float"})`);
  edge.append("title").text((arrow) => arrow.tooltip);

  const node = all.selectAll("g.box").data(boxes).join("g")
    .attr("class", (box) => `box${box.pair ? " pairbox" : ""}${box.integer ? " integer" : ""}${box.bad ? " bad" : ""}`)
    .attr("data-key", (box) => box.key)
    .attr("transform", (_, i) => `translate(${laid.boxes[i].x},${laid.boxes[i].y})`);
  node.append("rect").attr("rx", 5)
    .attr("x", (_, i) => -sized[i].width / 2).attr("y", (_, i) => -sized[i].height / 2)
    .attr("width", (_, i) => sized[i].width).attr("height", (_, i) => sized[i].height);
  node.append("text").selectAll("tspan").data((box, i) => [...box.lines, ...(box.cost ? [box.cost] : [])].map((text, row) => ({ text, row, i })))
    .join("tspan").attr("x", 0).attr("y", ({ row, i }) => 15 * row - sized[i].height / 2 + 18).text(({ text }) => line(text));
  node.append("title").text((box) => [...box.lines, box.tooltip].filter(Boolean).join("\n"));
  canvas.replaceChildren(svg.node());

  const awake = () => canvas.contains(document.activeElement);
  const zoom = d3.zoom().scaleExtent([0.02, 3]).on("zoom", ({ transform }) => all.attr("transform", transform))
    .filter((event) => (event.type === "wheel" ? awake() || event.ctrlKey : event.touches ? awake() || event.touches.length > 1 : !event.button));
  svg.call(zoom).on("dblclick.zoom", null);
  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const look = (x, y, k) => {
    const [width, height] = size();
    svg.call(zoom.transform, d3.zoomIdentity.translate(width / 2, height / 2).scale(k).translate(-x, -y));
  };
  const whole = () => look(laid.width / 2, laid.height / 2, Math.min(1, 0.97 * size()[0] / laid.width, 0.97 * size()[1] / laid.height));
  const view = {
    node, edge, boxes, arrows,
    at: -1,
    whole,
    zoomBy: (factor) => svg.call(zoom.scaleBy, factor),
    moveBy: (x, y) => svg.call(zoom.translateBy, x / d3.zoomTransform(svg.node()).k, y / d3.zoomTransform(svg.node()).k),
    show: (i) => look(laid.boxes[i].x, laid.boxes[i].y, Math.max(0.8, d3.zoomTransform(svg.node()).k)),
  };
  const readable = Math.min(1, Math.max(0.55, 0.97 * size()[0] / laid.width));
  if (laid.height * readable <= size()[1]) whole();
  else look(laid.boxes[0].x, size()[1] / readable / 2, readable);
  report.wirePanel(section, view, choose);
  canvas.dataset.drawn = "yes";
};
