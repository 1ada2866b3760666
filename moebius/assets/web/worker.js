// Runs the graphs away from the page: encode, sample by DDIM, decode.
// In: {kind: "load", manifest, device} | {kind: "paint", picture, options} | {kind: "stop"}
// Out: {kind: "progress", text, done} | "ready" | "painted" {picture} | "stopped" | "error" {text}

let ort, sessions, manifest, stopped;

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "load") {
      await load(data);
      post({ kind: "ready" });
    } else if (data.kind === "paint") {
      stopped = false;
      const picture = await paint(data.picture, data.options);
      post(picture ? { kind: "painted", picture } : { kind: "stopped" });
    } else if (data.kind === "stop") {
      stopped = true;
    }
  } catch (error) {
    post({ kind: "error", text: error?.message ?? `error ${error}` });
  }
};

function post(message) {
  self.postMessage(message);
}

async function load({ manifest: described, device }) {
  manifest = described;
  const build = device === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  ort = await import(`./ort/${build}`);
  ort.env.wasm.wasmPaths = new URL("./ort/", self.location.href).href;
  // Without the server's isolation headers a page gets no threads.
  ort.env.wasm.numThreads = self.crossOriginIsolated
    ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
  const names = Object.keys(manifest.graphs);
  const files = names.flatMap((name) => [`${name}.onnx`, `${name}.data`]);
  const total = files.reduce((sum, file) => sum + manifest.files[file].bytes, 0);
  let got = 0;
  sessions = {};
  for (const name of names) {
    const count = (bytes) => {
      got += bytes;
      const text = `Loading the model, ${(got / 1e6).toFixed(0)} of ${(total / 1e6).toFixed(0)} MB`;
      post({ kind: "progress", text, done: got / total });
    };
    const graph = await fetchBytes(`${name}.onnx`, count);
    const data = await fetchBytes(`${name}.data`, count);
    sessions[name] = await ort.InferenceSession.create(graph, {
      executionProviders: [device],
      externalData: [{ path: `${name}.data`, data }],
    });
  }
}

async function fetchBytes(file, count) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file} could not be loaded (${response.status})`);
  const bytes = new Uint8Array(manifest.files[file].bytes);
  let at = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length > bytes.length) throw new Error(`${file} is not the manifest's`);
    bytes.set(value, at);
    at += value.length;
    count(value.length);
  }
  if (at !== bytes.length) throw new Error(`${file} was cut short`);
  return bytes;
}

async function run(name, inputs) {
  const results = await sessions[name].run(inputs);
  return results[manifest.graphs[name].output.name];
}

// Returns null where it was stopped.
async function paint({ width, height, pixels, hole }, { steps, guidance, seed }) {
  const { pixels_per_cell: factor, latent_channels: channels } = manifest.sizes;
  const { train_steps, steps_offset, final_alpha, alphas } = manifest.sampling;
  const rows = height / factor, columns = width / factor;
  const tensor = (values, ...shape) => new ort.Tensor("float32", values, shape);
  post({ kind: "progress", text: "Reading the surroundings", done: 0 });
  const masked = await run("encoder", {
    image: tensor(toPlanes(pixels, width * height), 1, 3, height, width),
    mask: tensor(Float32Array.from(hole), 1, 1, height, width),
  });
  const known = tensor(await masked.getData(), 1, channels, rows, columns);
  const mask = tensor(topLeft(hole, rows, columns, factor), 1, 1, rows, columns);
  const stride = Math.floor(train_steps / steps);
  let latents = drawNoise(channels, rows * columns, seed);
  for (let step = 0; step < steps; step++) {
    post({ kind: "progress", text: `Step ${step + 1} of ${steps}`, done: step / steps });
    await new Promise((resolve) => setTimeout(resolve)); // lets a stop come in
    if (stopped) return null;
    const now = (steps - 1 - step) * stride + steps_offset, then = now - stride;
    const noise = await (await run("denoiser", {
      latents: tensor(latents, 1, channels, rows, columns),
      mask,
      masked_latents: known,
      timestep: tensor(Float32Array.of(now)),
      guidance_scale: tensor(Float32Array.of(guidance)),
    })).getData();
    const from = alphas[now], to = then < 0 ? final_alpha : alphas[then];
    latents = latents.map((x, i) => {
      const clean = (x - Math.sqrt(1 - from) * noise[i]) / Math.sqrt(from);
      return Math.sqrt(to) * clean + Math.sqrt(1 - to) * noise[i];
    });
  }
  post({ kind: "progress", text: "Painting", done: 1 });
  const decoded = await run("decoder", { latents: tensor(latents, 1, channels, rows, columns) });
  return { width, height, pixels: toPixels(await decoded.getData(), width * height) };
}

function toPlanes(pixels, count) {
  const planes = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) planes[c * count + i] = pixels[4 * i + c] / 127.5 - 1;
  }
  return planes;
}

function toPixels(planes, count) {
  const pixels = new Uint8ClampedArray(4 * count).fill(255); // clamps and rounds
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) pixels[4 * i + c] = (planes[c * count + i] + 1) * 127.5;
  }
  return pixels;
}

function topLeft(hole, rows, columns, factor) {
  const cells = new Float32Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      cells[y * columns + x] = hole[y * factor * columns * factor + x * factor];
    }
  }
  return cells;
}

// Normal noise whose every channel is shifted a little, as in training; a seed repeats it.
function drawNoise(channels, cells, seed) {
  let state = seed >>> 0;
  const uniform = () => { // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => // Box-Muller
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const noise = Float32Array.from({ length: channels * cells }, normal);
  for (let c = 0; c < channels; c++) {
    const shift = manifest.sampling.noise_offset * normal();
    for (let i = c * cells; i < (c + 1) * cells; i++) noise[i] += shift;
  }
  return noise;
}
