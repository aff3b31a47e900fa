"use strict";

const NAMES = { roc_auc: "ROC AUC", npv: "negative predictive value", f1: "F1", mcc: "Matthews correlation" };
const find = (id) => document.getElementById(id);
const results = [];
const waiting = [];
let model = null;
let chosen = null;
let isRunning = false;
let nChosen = 0;
let round = 0; // counts resets, so that answers to what was asked before are dropped

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

const percent = (value) => `${(100 * value).toFixed(1)} %`;

async function start() {
  model = await (await fetch("v1/model")).json();
  const parts = [`It tells ${model.classes.join(", ")} apart and was trained on: ${model.trained_on}.`];
  parts.push(`It is ${model.runs.join(", ")}${model.runs.length > 1 ? ", which decide by their mean logit" : ""}.`);
  find("model").textContent = parts.join(" ");
  for (const [name, metric] of Object.entries(model.metrics)) {
    if (metric.value === null) continue;
    const row = find("metrics").tBodies[0].insertRow();
    row.append(make("td", NAMES[name] ?? name.replaceAll("_", " "), "text"), make("td", metric.value.toFixed(3)));
    const interval = metric.low === null ? "-" : `${metric.low.toFixed(3)} to ${metric.high.toFixed(3)}`;
    row.append(make("td", interval));
    find("metrics").hidden = false;
  }
  const columns = ["Image", "Verdict", ...model.classes.map((name) => `Probability of ${name}`), "Note"];
  columns.forEach((name, i) => {
    const head = make("th", name, i < 2 || i === columns.length - 1 ? "text" : "");
    head.scope = "col";
    find("columns").append(head);
  });
  for (const name of await (await fetch("v1/examples")).json()) {
    const button = make("button");
    button.type = "button";
    const picture = make("img");
    picture.src = `v1/examples/${name}.png`;
    picture.alt = "";
    button.append(picture, make("span", name.replaceAll("_", " ")));
    button.addEventListener("click", async () => {
      const content = await (await fetch(picture.src)).blob();
      add([new File([content], `${name}.png`)]);
    });
    find("examples").append(button);
  }
}

function add(files) {
  if (!isRunning) nChosen = 0;
  nChosen += files.length;
  waiting.push(...files);
  if (!isRunning) predictAll();
}

async function predictAll() {
  const asked = round;
  isRunning = true;
  while (waiting.length && asked === round) {
    showProgress();
    const file = waiting.shift();
    const answer = { file, ...(await ask(file, "image")) };
    if (asked !== round) return;
    results.push(answer);
    addRow(answer);
    if (chosen === null || nChosen === 1) choose(answer);
  }
  isRunning = false;
  showProgress();
}

async function ask(file, what) {
  if (file.size > model.max_request_bytes) {
    return { name: file.name, error: `too large: over ${model.max_request_bytes / 1e6} MB` };
  }
  const form = new FormData();
  form.append("files", file, file.name);
  try {
    for (;;) {
      const response = await fetch(`v1/predict?${what}=true`, { method: "POST", body: form });
      if (response.status === 503) {
        await new Promise((resume) => setTimeout(resume, 1000));
        continue;
      }
      const answer = await response.json();
      return response.ok ? answer.predictions[0] : { name: file.name, error: answer.error };
    }
  } catch {
    return { name: file.name, error: "the server does not answer" };
  }
}

function showProgress() {
  const n = waiting.length + Number(isRunning);
  find("progress").textContent = n ? `${nChosen - n} of ${nChosen} images predicted` : "";
  document.body.setAttribute("aria-busy", String(n > 0));
}

function addRow(answer) {
  const row = find("rows").insertRow();
  answer.row = row;
  const button = make("button", answer.name);
  button.type = "button";
  button.addEventListener("click", () => { choose(answer); find("result-heading").focus(); });
  const first = make("td", undefined, "text");
  first.append(button);
  row.append(first, make("td", answer.label ?? "-", "text"));
  for (const name of model.classes) {
    row.append(make("td", answer.probabilities ? percent(answer.probabilities[name]) : "-"));
  }
  const note = answer.error ? `not read: ${answer.error}` : answer.unlike ? "unlike the training images" : "";
  row.append(make("td", note, "text"));
  find("all").hidden = false;
}

function choose(answer) {
  if (chosen) chosen.row.className = "";
  chosen = answer;
  answer.row.className = "chosen";
  find("result").hidden = false;
  find("name").textContent = answer.name;
  find("warning").hidden = !(answer.error || answer.unlike);
  find("warning").replaceChildren();
  if (answer.error) find("warning").append(make("strong", "Not read: "), answer.error);
  if (answer.unlike) {
    find("warning").append(
      make("strong", "This image is unlike those that the model was trained on. "),
      `It lies ${answer.novelty.toFixed(1)} times as far from them as 99 % of the validation images. `,
      "Do not rely on the verdict below.",
    );
  }
  find("verdict").replaceChildren();
  find("bars").replaceChildren();
  const pictures = document.querySelector(".pictures");
  pictures.hidden = Boolean(answer.error);
  if (answer.error) return;
  const [label, ...rest] = answer.text.split(":");
  find("verdict").append(make("strong", label), `:${rest.join(":")}`);
  const names = answer.threshold === null ? model.classes : [model.classes[1]];
  for (const name of names) find("bars").append(drawBar(name, answer.probabilities[name], answer.threshold));
  find("seen").src = find("under").src = `data:image/png;base64,${answer.image}`;
  find("overlay-figure").hidden = !model.explains;
  find("no-map").hidden = model.explains;
  if (model.explains) showMap(answer);
}

async function showMap(answer) {
  find("map").hidden = !answer.map;
  find("drawing").hidden = Boolean(answer.map);
  if (!answer.map) answer.map = (await ask(answer.file, "map")).map;
  if (answer !== chosen || !answer.map) return;
  find("map").src = `data:image/png;base64,${answer.map}`;
  find("map").hidden = false;
  find("drawing").hidden = true;
}

function drawBar(name, value, threshold) {
  const bar = make("div", undefined, "bar");
  const track = make("div", undefined, "track");
  track.setAttribute("role", "img");
  const words = threshold === null ? "" : `, threshold ${percent(threshold)}`;
  track.setAttribute("aria-label", `Calibrated probability of ${name}: ${percent(value)}${words}`);
  const fill = make("div", undefined, "fill");
  fill.style.width = `${100 * value}%`;
  track.append(fill);
  bar.append(make("span", name), track, make("span", percent(value), "number"));
  if (threshold !== null) {
    const mark = make("div", undefined, "mark");
    mark.style.left = `calc(${100 * threshold}% - 1px)`;
    track.append(mark);
    bar.append(make("span", `calibrated probability; the mark is the threshold, ${percent(threshold)}`, "legend"));
  }
  return bar;
}

function downloadTable() {
  // A field that begins like a formula would be run by a spreadsheet.
  const guard = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);
  const quote = (value) => `"${(typeof value === "string" ? guard(value) : String(value ?? "")).replaceAll('"', '""')}"`;
  const head = ["name", "label", ...model.classes.map((name) => `p_${name}`), "threshold", "novelty", "unlike", "error"];
  const rows = results.map((each) => [
    each.name, each.label, ...model.classes.map((name) => each.probabilities?.[name]),
    each.threshold, each.novelty, each.unlike, each.error,
  ]);
  const text = [head, ...rows].map((row) => row.map(quote).join(",")).join("\r\n");
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "predictions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function reset() {
  round += 1;
  results.length = waiting.length = nChosen = 0;
  isRunning = false;
  chosen = null;
  find("rows").replaceChildren();
  find("files").value = "";
  find("result").hidden = find("all").hidden = true;
  showProgress();
  find("files").focus();
}

function setOpacity() {
  find("map").style.opacity = find("opacity").value / 100;
}

const drop = find("drop");
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => event.preventDefault());
}
drop.addEventListener("dragover", () => drop.classList.add("over"));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
});
find("files").addEventListener("change", () => {
  add([...find("files").files]);
  find("files").value = "";
});
find("download").addEventListener("click", downloadTable);
find("reset").addEventListener("click", reset);
find("opacity").addEventListener("input", setOpacity);
setOpacity();
start();
