// The page: open, paint, undo, fill, compare, download.

import { Photo, drawStrokes } from "./photo.js";
import { planCrops } from "./regions.js";

const MASK = "#e0218a";
const $ = (id) => document.getElementById(id);
const picture = $("picture").getContext("2d"), overlay = $("overlay").getContext("2d");

let manifest, worker, waiting, photo, original, name = "photograph";
let strokes = [], history = [], drawing = null, busy = false, loaded = null;

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

function refresh() {
  const fills = history.some((action) => action.takeBack);
  $("undo").disabled = busy || !history.length;
  $("clear").disabled = busy || !strokes.length;
  $("run").disabled = busy || !strokes.length;
  $("compare").disabled = $("download").disabled = busy || !fills;
  $("another").disabled = busy;
  $("run").hidden = busy;
  $("stop").hidden = $("progress").hidden = !busy;
}

function show(source = photo.canvas) {
  picture.drawImage(source, 0, 0, picture.canvas.width, picture.canvas.height);
}

function showMask() {
  const scale = overlay.canvas.width / photo.width;
  overlay.setTransform(1, 0, 0, 1, 0, 0);
  overlay.clearRect(0, 0, overlay.canvas.width, overlay.canvas.height);
  overlay.setTransform(scale, 0, 0, scale, 0, 0);
  drawStrokes(overlay, drawing ? [...strokes, drawing] : strokes, MASK);
  overlay.canvas.style.opacity = 0.55;
}

// The frame takes the photograph's shape, within the page's width and most of the window's height.
function layout() {
  if (!photo) return;
  const width = Math.min(
    $("stage").clientWidth, (window.innerHeight * 0.72 * photo.width) / photo.height,
    Math.max(photo.width, 256));
  const height = (width * photo.height) / photo.width;
  Object.assign($("frame").style, { width: `${width}px`, height: `${height}px` });
  for (const { canvas } of [picture, overlay]) {
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
  }
  picture.imageSmoothingQuality = "high";
  show();
  showMask();
}

// Resolves to whether there is a model.
async function readManifest() {
  try {
    manifest = await (await fetch("manifest.json")).json();
  } catch {
    say("manifest.json could not be read: serve this folder over HTTP.", true);
    return false;
  }
  const { model, sampling } = manifest;
  $("steps").value = sampling.steps;
  $("guidance").value = sampling.guidance_scale;
  const gpu = await navigator.gpu?.requestAdapter().catch(() => null);
  if (gpu) $("device").value = "webgpu";
  else $("device").options[1].disabled = true;
  const millions = (model.parameters / 1e6).toFixed(1);
  $("model").textContent = `${model.architecture}, ${millions} M parameters. `
    + `Weights: ${model.provenance}. Licence: ${model.licence}.`;
  say("");
  return true;
}

const ready = readManifest();

async function open(blob) {
  if (busy || !blob || !(await ready)) return;
  try {
    photo = await Photo.read(blob);
  } catch {
    say(`${blob.name ?? "This file"} is not a picture that this browser reads.`, true);
    return;
  }
  original = await createImageBitmap(photo.canvas);
  name = (blob.name ?? "photograph").replace(/\.[^.]*$/, "");
  strokes = [];
  history = [];
  $("stage").classList.remove("empty");
  $("open").hidden = true;
  $("frame").hidden = $("tools").hidden = false;
  layout();
  refresh();
  say(`${photo.width} × ${photo.height} pixels. Paint over what should go, then press Fill.`);
}

function position(event) {
  const box = overlay.canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) / box.width) * photo.width,
    ((event.clientY - box.top) / box.height) * photo.height,
  ];
}

$("overlay").addEventListener("pointerdown", (event) => {
  if (busy || event.button) return;
  $("overlay").setPointerCapture(event.pointerId);
  const scale = photo.width / overlay.canvas.getBoundingClientRect().width;
  drawing = { radius: ($("brush").value / 2) * scale, points: [position(event)] };
  showMask();
});
$("overlay").addEventListener("pointermove", (event) => {
  if (!drawing) return;
  drawing.points.push(position(event));
  showMask();
});
for (const kind of ["pointerup", "pointercancel"]) {
  $("overlay").addEventListener(kind, () => {
    if (!drawing) return;
    strokes.push(drawing);
    history.push({ strokes: strokes.slice(0, -1) });
    drawing = null;
    refresh();
  });
}

function undo() {
  if (busy || !history.length) return;
  const action = history.pop();
  action.takeBack?.();
  strokes = action.strokes;
  show();
  showMask();
  refresh();
}

// One message to the worker, and its answer.
function ask(message, answer) {
  return new Promise((resolve, reject) => {
    waiting = { answer, resolve, reject };
    worker.postMessage(message);
  });
}

function startWorker() {
  worker?.terminate();
  worker = new Worker("worker.js", { type: "module" });
  worker.onerror = (event) => waiting?.reject(new Error(event.message || "the worker failed"));
  worker.onmessage = ({ data }) => {
    if (data.kind === "progress") {
      $("progress").value = data.done;
      say(data.text);
    } else if (data.kind === "error") waiting.reject(new Error(data.text));
    else if (data.kind === "stopped") waiting.resolve(null);
    else if (data.kind === waiting.answer) waiting.resolve(data.picture ?? true);
  };
}

function options() {
  const number = (id) => {
    if (!$(id).checkValidity() || $(id).value === "") {
      throw new Error(`${id}: use ${$(id).min} to ${$(id).max}`);
    }
    return $(id).valueAsNumber;
  };
  return { steps: number("steps"), guidance: number("guidance"), seed: number("seed") };
}

async function fill() {
  const undos = [];
  busy = true;
  $("progress").value = 0;
  say("Starting\u2026");
  refresh();
  try {
    const chosen = options();
    if (loaded !== $("device").value) {
      loaded = null;
      startWorker();
      await ask({ kind: "load", manifest, device: $("device").value }, "ready");
      loaded = $("device").value;
    }
    const { trained_pixels: side, multiple_pixels: unit } = manifest.sizes;
    const crops = planCrops(strokes, photo, side);
    const started = performance.now();
    for (const [index, crop] of crops.entries()) {
      const cut = photo.cut(crop, strokes, side, unit);
      const seeded = { ...chosen, seed: chosen.seed + index };
      const painted = await ask({ kind: "paint", picture: cut, options: seeded }, "painted");
      if (!painted) break;
      undos.push(photo.stitch(crop, strokes, painted));
    }
    const whole = undos.length === crops.length;
    finish(undos, whole);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    say(whole ? `Done in ${seconds} s.` : "Stopped.");
  } catch (error) {
    finish(undos, false);
    say(`It did not work: ${error.message}`, true);
  }
  busy = false;
  refresh();
}

// A fill that was not finished is taken back, so that the mask still stands for what is missing.
function finish(undos, whole) {
  const takeBack = () => undos.toReversed().forEach((one) => one());
  if (whole) {
    history.push({ strokes, takeBack });
    strokes = [];
  } else {
    takeBack();
  }
  show();
  showMask();
}

async function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await photo.toPNG());
  link.download = `${name}-inpainted.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

$("file").addEventListener("change", (event) => {
  open(event.target.files[0]);
  event.target.value = "";
});
$("another").addEventListener("click", () => $("file").click());
$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", () => {
  history.push({ strokes });
  strokes = [];
  showMask();
  refresh();
});
$("run").addEventListener("click", fill);
$("stop").addEventListener("click", () => {
  if (loaded) worker.postMessage({ kind: "stop" });
  else {
    worker?.terminate();
    waiting?.reject(new Error("stopped while loading"));
  }
});
$("download").addEventListener("click", download);
$("compare").addEventListener("pointerdown", () => show(original));
for (const kind of ["pointerup", "pointerleave", "pointercancel"]) {
  $("compare").addEventListener(kind, () => photo && show());
}
window.addEventListener("resize", layout);
window.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && photo) {
    event.preventDefault();
    undo();
  }
});
window.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("stage").classList.add("over");
});
window.addEventListener("dragleave", () => $("stage").classList.remove("over"));
window.addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  open(event.dataTransfer.files[0]);
});
window.addEventListener("paste", (event) => open(event.clipboardData.files[0]));
