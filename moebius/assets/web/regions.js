// Where to look: strokes become regions, regions crops of a size that the model takes.
// A stroke is {radius, points: [[x, y], ...]} in pixels of the photograph.

const CONTEXT = 1.5; // sides of a crop over those of its hole

export function strokeBox({ radius, points }, photo) {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  return {
    left: Math.max(0, Math.floor(Math.min(...xs) - radius)),
    top: Math.max(0, Math.floor(Math.min(...ys) - radius)),
    right: Math.min(photo.width, Math.ceil(Math.max(...xs) + radius)),
    bottom: Math.min(photo.height, Math.ceil(Math.max(...ys) + radius)),
  };
}

// One crop for each group of strokes whose crops would meet; strokes outside the photo are left out.
export function planCrops(strokes, photo, side) {
  let boxes = strokes
    .map((stroke) => strokeBox(stroke, photo))
    .filter((box) => box.right > box.left && box.bottom > box.top);
  for (let merged = true; merged; ) {
    merged = false;
    const kept = [];
    for (const box of boxes) {
      const other = kept.find((k) => overlap(cropAround(k, photo, side), box));
      if (other) {
        Object.assign(other, union(other, box));
        merged = true;
      } else {
        kept.push({ ...box });
      }
    }
    boxes = kept;
  }
  return boxes.map((box) => cropAround(box, photo, side));
}

export function cropAround(box, photo, side) {
  const hole = Math.max(box.right - box.left, box.bottom - box.top);
  const wanted = Math.max(side, Math.ceil(CONTEXT * hole));
  const [left, width] = place(box.left, box.right, wanted, photo.width);
  const [top, height] = place(box.top, box.bottom, wanted, photo.height);
  return { left, top, width, height };
}

// The size that the model sees: never larger than the crop, sides in multiples of `unit`.
export function workingSize(crop, side, unit) {
  const scale = Math.min(1, side / Math.max(crop.width, crop.height));
  const fit = (length) => Math.max(unit, Math.round((length * scale) / unit) * unit);
  return { width: fit(crop.width), height: fit(crop.height) };
}

function place(from, to, wanted, limit) {
  const length = Math.min(wanted, limit);
  const start = Math.round((from + to - length) / 2);
  return [Math.min(Math.max(0, start), limit - length), length];
}

function overlap(crop, box) {
  return crop.left < box.right && box.left < crop.left + crop.width
    && crop.top < box.bottom && box.top < crop.top + crop.height;
}

function union(a, b) {
  return {
    left: Math.min(a.left, b.left),
    top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right),
    bottom: Math.max(a.bottom, b.bottom),
  };
}
