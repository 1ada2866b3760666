// The photograph at full size: strokes upon it, crops out of it, results back into it.

import { workingSize } from "./regions.js";

export function drawStrokes(context, strokes, style) {
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = style;
  for (const { radius, points } of strokes) {
    context.beginPath();
    if (points.length === 1) {
      context.arc(points[0][0], points[0][1], radius, 0, 2 * Math.PI);
      context.fill();
    } else {
      context.lineWidth = 2 * radius;
      points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    }
  }
}

function canvasOf(width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  return context;
}

function alphaOf(context) {
  const { width, height } = context.canvas;
  return context.getImageData(0, 0, width, height).data;
}

export class Photo {
  static async read(blob) {
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
    const context = canvasOf(bitmap.width, bitmap.height);
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    return new Photo(context);
  }

  constructor(context) {
    this.context = context;
    this.canvas = context.canvas;
    this.width = context.canvas.width;
    this.height = context.canvas.height;
  }

  // What the model sees of a crop: {width, height, pixels (RGBA), hole (1 = hole)}.
  cut(crop, strokes, side, unit) {
    const { width, height } = workingSize(crop, side, unit);
    const small = canvasOf(width, height);
    small.drawImage(
      this.canvas, crop.left, crop.top, crop.width, crop.height, 0, 0, width, height);
    const cover = canvasOf(width, height);
    cover.drawImage(this.#mask(crop, strokes).canvas, 0, 0, width, height);
    const alpha = alphaOf(cover);
    // A small pixel is hole if any that it covers is.
    const hole = Uint8Array.from({ length: width * height }, (_, i) => (alpha[4 * i + 3] ? 1 : 0));
    return { width, height, pixels: small.getImageData(0, 0, width, height).data, hole };
  }

  // Puts a result into the hole, and only there. Returns what takes it back.
  stitch(crop, strokes, { width, height, pixels }) {
    const small = canvasOf(width, height);
    small.putImageData(new ImageData(pixels, width, height), 0, 0);
    const large = canvasOf(crop.width, crop.height);
    large.drawImage(small.canvas, 0, 0, crop.width, crop.height);
    const painted = large.getImageData(0, 0, crop.width, crop.height).data;
    const alpha = alphaOf(this.#mask(crop, strokes));
    const place = [crop.left, crop.top, crop.width, crop.height];
    const before = this.context.getImageData(...place);
    const after = this.context.getImageData(...place);
    for (let i = 0; i < alpha.length; i += 4) {
      if (alpha[i + 3] >= 128) after.data.set(painted.subarray(i, i + 3), i);
    }
    this.context.putImageData(after, crop.left, crop.top);
    return () => this.context.putImageData(before, crop.left, crop.top);
  }

  toPNG() {
    return this.canvas.convertToBlob({ type: "image/png" });
  }

  #mask(crop, strokes) {
    const mask = canvasOf(crop.width, crop.height);
    mask.translate(-crop.left, -crop.top);
    drawStrokes(mask, strokes, "#fff");
    return mask;
  }
}
