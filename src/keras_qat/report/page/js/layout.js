"use strict";
// Where boxes and arrows go. Hundreds of boxes take dagre seconds, so it works beside the page, in a worker.
report.place = function ({ boxes, arrows }, dagre) {
  const graph = new dagre.graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: "TB", nodesep: 26, ranksep: 26, edgesep: 14, marginx: 12, marginy: 12 });
  for (const { key, width, height } of boxes) graph.setNode(key, { width, height });
  arrows.forEach(({ source, sink }, i) => graph.setEdge(source, sink, {}, `${i}`));
  dagre.layout(graph);
  return {
    width: graph.graph().width,
    height: graph.graph().height,
    boxes: boxes.map(({ key }) => ({ x: graph.node(key).x, y: graph.node(key).y })),
    arrows: arrows.map(({ source, sink }, i) => graph.edge(source, sink, `${i}`).points),
  };
};

report.layOut = (sized) => new Promise((resolve) => {
  const here = () => resolve(report.place(sized, dagre));
  try {
    const library = document.getElementById("script-dagre").textContent;
    const text = `${library}\nconst place = ${report.place};\nonmessage = (event) => postMessage(place(event.data, dagre));`;
    const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    const worker = new Worker(url);
    worker.onmessage = (event) => { worker.terminate(); URL.revokeObjectURL(url); resolve(event.data); };
    worker.onerror = (event) => { event.preventDefault(); worker.terminate(); here(); };
    worker.postMessage(sized);
  } catch {
    here(); // A browser that allows no worker in a local file.
  }
});
