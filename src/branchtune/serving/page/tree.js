"use strict";

// The drawing of the tree, and the times beside it. page.js holds the state and begins.

function shape(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Levels from left to right, every node as high as the rows of its tasks.
function drawTree() {
  const { model } = state, timing = state.answer?.timing;
  const levels = model.tree, rows = taskOrder(levels);
  const time = (level, tasks) => timing?.nodes.find((n) => n.level === level && n.tasks.join() === tasks.join())?.ms;
  const columns = [{ head: "stem", nodes: [{ tasks: rows, ms: timing?.stem_ms }] }];
  levels.forEach((groups, level) => columns.push({
    head: `level ${level}`, nodes: groups.map((tasks) => ({ tasks, ms: time(level, tasks) })),
  }));
  const height = 34, top = 22, gap = 14, label = 62 + 7 * Math.max(...rows.map((task) => task.length));
  const room = Math.max(one("tree").clientWidth, columns.length * 44 + label);
  const width = (room - label) / columns.length;
  const svg = shape("svg", { width: room, height: top + rows.length * height + 2, role: "img", "aria-label": inWords() });
  columns.forEach(({ head, nodes }, column) => {
    const x = column * width + 1;
    svg.append(shape("text", { class: "head", x, y: 14 }, width > 62 || column === 0 ? head : head.replace("level ", "L")));
    for (const { tasks, ms: took } of nodes) {
      const places = tasks.map((task) => rows.indexOf(task));
      const y = top + Math.min(...places) * height + 3, high = tasks.length * height - 6;
      const needed = tasks.some((task) => state.on.has(task));
      const group = shape("g", { class: needed ? "" : "off" });
      group.append(shape("title", {}, `${head}: ${tasks.join(", ")}`));
      if (column > 0) group.append(shape("rect", { class: "band", x: x - gap + 1, y: y + 4, width: gap - 2, height: high - 8 }));
      group.append(shape("rect", { class: "node", x, y, width: width - gap, height: high, rx: 4 }));
      const text = needed ? ms(took) + (took !== undefined && width > 80 ? " ms" : "") : "off";
      group.append(shape("text", { x: x + (width - gap) / 2, y: y + high / 2 + 4, "text-anchor": "middle" }, text));
      svg.append(group);
    }
  });
  const x = columns.length * width + 1;
  svg.append(shape("text", { class: "head", x: x - 4, y: 14 }, "decoders"));
  rows.forEach((task, row) => {
    const group = shape("g", { class: state.on.has(task) ? "" : "off" });
    const took = timing?.decoders.find((decoder) => decoder.task === task)?.ms;
    group.append(shape("rect", { class: "band", x: x - gap + 1, y: top + row * height + 10, width: gap - 5, height: height - 20 }));
    group.append(shape("text", { x, y: top + row * height + 21 }, state.on.has(task) && took ? `${task} ${ms(took)} ms` : task));
    svg.append(group);
  });
  one("tree").replaceChildren(svg);
  if (one("tree").scrollWidth > one("tree").clientWidth) one("tree").setAttribute("tabindex", "0");
  else one("tree").removeAttribute("tabindex");
  showTimes(columns, timing);
}

// Tasks of one group are neighbours at every level, since every level refines the one before.
function taskOrder(levels) {
  const path = (task) => levels.map((groups) => String(groups.findIndex((group) => group.includes(task))).padStart(4, "0")).join();
  return levels[0].flat().sort((a, b) => path(a) < path(b) ? -1 : 1);
}

function neededNodes() {
  const nodes = state.model.tree.flat();
  return [nodes.filter((tasks) => tasks.some((task) => state.on.has(task))).length, nodes.length];
}

function inWords() {
  const [needed, all] = neededNodes();
  const levels = state.model.tree.map((groups, level) => `level ${level}: ${groups.map((g) => g.join(" and ")).join("; ")}`);
  return `Tree of adapters, ${needed} of ${all} nodes needed. ${levels.join(". ")}.`;
}

function showTimes(columns, timing) {
  const [needed, all] = neededNodes();
  const total = timing ? `${ms(timing.total_ms)} ms for ${plural(timing.decoders.length, "task")}, ` : "";
  const company = timing && timing.batch_size > 1 ? `, in one pass with ${plural(timing.batch_size - 1, "other image")}` : "";
  one("total").textContent = `${total}${needed} of ${all} nodes needed${company}`;
  const rows = columns.flatMap(({ head, nodes }) => nodes.filter((node) => node.ms !== undefined)
    .map((node) => [head, node.tasks.join(", "), ms(node.ms)]));
  for (const decoder of timing?.decoders ?? []) rows.push(["decoder", decoder.task, ms(decoder.ms)]);
  if (timing) rows.push(["together", "", ms(timing.total_ms)]);
  one("times").replaceChildren(...rows.map(([part, tasks, took]) => element("tr", {},
    element("td", {}, part), element("td", {}, tasks), element("td", { class: "number" }, took))));
}
