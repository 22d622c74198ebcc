"use strict";

const one = (id) => document.getElementById(id);
// answer: the server's, with the image and the name that it was given for.
const state = { model: null, image: null, name: "", on: new Set(), answer: null, request: null, opacity: 75 };

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function say(text) { one("status").textContent = text; }

function complain(text) {
  one("error").textContent = text;
  one("error").hidden = !text;
}

// The answer's JSON; an Error with the server's one line where it refused.
async function ask(url, options) {
  let response, answer;
  try {
    response = await fetch(url, options);
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (!response) throw new Error("The server does not answer: is branchtune serve still running?");
    if (response.ok) throw new Error("The server's answer broke off.");
    answer = { detail: `The server failed (${response.status}).` };
  }
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

function send(image, tasks, format, { scores = false, ...options } = {}) {
  const form = new FormData();
  form.append("image", image, "image");
  for (const task of tasks) form.append("tasks", task);
  form.append("format", format);
  form.append("scores", scores);
  return ask("predict", { method: "POST", body: form, ...options });
}

const ms = (value) => value === undefined ? "" : value < 10 ? value.toFixed(1) : value.toFixed(0);
const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
const wanted = () => state.model.tasks.map((task) => task.name).filter((name) => state.on.has(name));
const stem = (name) => name.replace(/\.[^.]*$/, "") || "image";

// ---- the image

async function choose(image, name) {
  complain("");
  const limit = state.model.limits.max_bytes;
  if (image.size > limit) {
    complain(`${name} has ${(image.size / 1e6).toFixed(1)} MB, more than the ${limit / 1e6} MB that this server takes.`);
    return;
  }
  const before = { image: state.image, name: state.name };
  Object.assign(state, { image, name });
  if (await predict() !== "refused") return;
  const shown = state.answer ?? before;
  Object.assign(state, { image: shown.image, name: shown.name });
}

// "refused" where the server, or the way to it, failed.
async function predict() {
  drawTree();
  if (!state.image) return "done";
  state.request?.abort();
  const tasks = wanted();
  if (!tasks.length) {
    say("Switch on at least one task.");
    state.answer = null;
    one("outputs").setAttribute("aria-busy", "false");
    showFigures();
    drawTree();
    return "done";
  }
  const { image, name } = state;
  const request = state.request = new AbortController();
  let outcome = "done";
  one("outputs").setAttribute("aria-busy", "true");
  say(`Computing ${tasks.length === 1 ? tasks[0] : tasks.length + " tasks"} …`);
  try {
    const answer = await send(image, tasks, "png", { signal: request.signal });
    state.answer = { ...answer, image, seen: answer.image, name };
    complain("");
    say(`${name}, ${state.answer.height} pixels high and ${state.answer.width} wide`);
    showFigures();
  } catch (error) {
    if (error.name === "AbortError") return "replaced";
    outcome = "refused";
    complain(`${name}: ${error.message}`);
    say(!state.answer ? "No outputs yet." : state.answer.image === image ? "The outputs are those from before."
      : `The outputs are those of ${state.answer.name}.`);
  }
  one("outputs").setAttribute("aria-busy", "false");
  drawTree();
  return outcome;
}

// ---- outputs

function showFigures() {
  const answer = state.answer;
  const shown = new Map([...one("figures").children].map((figure) => [figure.dataset.task, figure]));
  const tasks = answer ? state.model.tasks.filter((task) => task.name in answer.tasks) : [];
  one("figures").replaceChildren(...tasks.map((task) => {
    const opacity = shown.get(task.name)?.querySelector("input")?.value ?? state.opacity;
    return figure(task, answer.tasks[task.name], opacity);
  }));
  one("all").hidden = !tasks.some((task) => task.kind !== "image");
}

function figure(task, output, opacity) {
  const buttons = element("div", { class: "downloads" }, "Download", download(task.name, "npy"));
  const caption = element("figcaption", {}, task.name, element("span", {}, output.shape.join(" x ")));
  const made = element("figure", { "data-task": task.name }, caption);
  if (output.png) {
    const over = element("img", { src: `data:image/png;base64,${output.png}`, alt: `${task.name} of ${state.answer.name}` });
    over.style.opacity = opacity / 100;
    const below = element("img", { src: `data:image/jpeg;base64,${state.answer.seen}`, alt: "" });
    const slider = element("input", {
      type: "range", min: 0, max: 100, value: opacity, "aria-label": `opacity of ${task.name}`,
      oninput: (event) => { over.style.opacity = event.target.value / 100; },
    });
    made.append(element("div", { class: "stack" }, below, over), element("label", {}, "Opacity", slider),
      element("p", { class: "legend" }, legend(task, output)));
    buttons.append(download(task.name, "png"));
  } else {
    const largest = (value) => value ?? -Infinity; // null is what was not finite
    const order = output.values.map((value, index) => [value, index]).sort((a, b) => largest(b[0]) - largest(a[0])).slice(0, 5);
    const [title, what] = task.classes ? ["most likely", "class"] : ["largest values", "channel"];
    made.append(element("p", { class: "legend" }, title),
      element("ol", {}, ...order.map(([value, index]) => element("li", {}, `${what} ${index}: ${value?.toFixed(3) ?? "–"}`))));
  }
  if (task.kind === "classes") buttons.append(download(task.name, "scores.npy"));
  made.append(buttons);
  return made;
}

function legend(task, output) {
  if (!task.scaled || output.low === null || output.high === null) return task.picture;
  const [bright, unit] = task.kind === "depth" ? ["near", " m"] : ["high", ""];
  return `${bright} is bright: ${output.low.toFixed(2)} to ${output.high.toFixed(2)}${unit} in this image`;
}

// Files end as those of `branchtune predict`: "npy", "scores.npy", "png".
function download(task, ending) {
  const label = `Download ${task} as ${ending}`;
  return element("button", { type: "button", "aria-label": label, onclick: () => save(task, ending) }, `.${ending}`);
}

async function save(task, ending) {
  const shown = state.answer, [format, scores] = ending.split(".").reverse();
  complain("");
  try {
    const answer = format === "png" ? shown : await send(shown.image, [task], format, { scores: Boolean(scores) });
    const bytes = Uint8Array.from(atob(answer.tasks[task][format]), (letter) => letter.charCodeAt(0));
    const url = URL.createObjectURL(new Blob([bytes]));
    element("a", { href: url, download: `${stem(shown.name)}.${task}.${ending}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) {
    complain(`${task}.${ending}: ${error.message}`);
  }
}

// ---- beginning

async function begin() {
  while ((await ask("health")).status !== "ready") await new Promise((done) => setTimeout(done, 500));
  const model = state.model = await ask("model");
  document.title = `${model.name} - branchtune`;
  one("name").textContent = model.name;
  one("facts").textContent = `${model.backbone}, images at ${model.image_size.join(" x ")} pixels, on ${model.device}`;
  for (const { name } of model.tasks) {
    state.on.add(name);
    const box = element("input", { type: "checkbox", onchange: (event) => toggle(name, event.target.checked) });
    box.checked = true;
    one("tasks").append(element("label", {}, box, name));
  }
  drawTree();
  new ResizeObserver(drawTree).observe(one("source"));
  one("file").disabled = false;
  say("Choose an image, or drop one.");
  showExamples(await ask("examples"));
}

function toggle(name, on) {
  if (on) state.on.add(name);
  else state.on.delete(name);
  predict();
}

function showExamples(examples) {
  one("examples").hidden = !examples.length;
  for (const { name, url } of examples) {
    const button = element("button", { type: "button", "aria-pressed": "false", onclick: () => take(name, url) },
      element("img", { src: url, alt: `example ${name}` }));
    button.dataset.name = name;
    one("examples").querySelector("ul").append(element("li", {}, button));
  }
}

function press(name) {
  for (const button of document.querySelectorAll("#examples button")) {
    button.setAttribute("aria-pressed", String(button.dataset.name === name));
  }
}

async function take(name, url) {
  press(name);
  const response = await fetch(url).catch(() => null);
  if (response?.ok) await choose(await response.blob(), name);
  else complain(`${name}: this example cannot be read.`);
}

function upload(file) {
  press(null);
  choose(file, file.name);
}

one("file").addEventListener("change", (event) => {
  if (event.target.files.length) upload(event.target.files[0]);
  event.target.value = "";
});
one("all").querySelector("input").addEventListener("input", (event) => {
  state.opacity = event.target.value;
  for (const slider of document.querySelectorAll("figure input")) {
    slider.value = state.opacity;
    slider.dispatchEvent(new Event("input"));
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length && state.model) upload(event.dataTransfer.files[0]);
});
begin().catch((error) => { say(""); complain(error.message); });
