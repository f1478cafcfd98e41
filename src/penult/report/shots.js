// Images with the map of one feature laid over them, and the viewer that enlarges them.

const SIDE = 63; // an odd multiple of 7: the middle of a cell of a 7 × 7 map is one pixel
const WARM = [[255, 196, 0], [230, 60, 0]];
const COLD = [[86, 190, 255], [0, 70, 190]];

function readMap(text) {
  const bytes = atob(text);
  const values = new Int8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) values[i] = bytes.charCodeAt(i);
  return values;
}

// Values are interpolated first and coloured then: between + and − lies nothing, not a mixture.
function drawMap(canvas, text, grid) {
  const [rows, columns] = grid;
  const values = readMap(text);
  const scale = Math.max(1, Math.round(SIDE / Math.max(rows, columns)));
  const height = rows * scale;
  const width = columns * scale;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  if (!context || values.length !== rows * columns) return;
  const picture = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    const [top, bottom, down] = between(y, scale, rows);
    for (let x = 0; x < width; x++) {
      const [left, right, over] = between(x, scale, columns);
      const above = values[top * columns + left] * (1 - over) + values[top * columns + right] * over;
      const below = values[bottom * columns + left] * (1 - over) + values[bottom * columns + right] * over;
      tint(picture.data, 4 * (y * width + x), (above * (1 - down) + below * down) / 127);
    }
  }
  context.putImageData(picture, 0, 0);
}

// Cell centres lie half a cell inside the picture, as the network's positions do.
function between(pixel, scale, cells) {
  const at = Math.min(Math.max((pixel + 0.5) / scale - 0.5, 0), cells - 1);
  const low = Math.min(Math.floor(at), Math.max(cells - 2, 0));
  return [low, Math.min(low + 1, cells - 1), at - low];
}

function tint(data, at, value) {
  const strength = Math.min(1, Math.abs(value));
  const [weak, strong] = value < 0 ? COLD : WARM;
  for (let i = 0; i < 3; i++) data[at + i] = weak[i] + (strong[i] - weak[i]) * strength;
  data[at + 3] = 255 * 0.66 * strength ** 0.8;
}

// The image with its map, or a placeholder that names what is missing: the image, or `name`.
// side: pixels in which the app may show it larger than in lists.
function picture(index, map, name, side) {
  const image = item("image", index);
  const frame = el("span", { class: "frame" });
  if (image?.text) {
    frame.classList.add("words");
    frame.append(el("bdi", null, image.text));
    return frame;
  }
  if (!image || !image.src) {
    frame.classList.add("missing");
    frame.append(el("span", null, el("bdi", null, image?.id || name || `no ${thing()}`)));
    return frame;
  }
  const shown = el("img", { alt: describe(image), decoding: "async", draggable: "false" });
  const pixelate = () => shown.classList.toggle("pixelated", Math.max(shown.naturalWidth, shown.naturalHeight) <= 40);
  shown.addEventListener("load", pixelate);
  if (!image.src.startsWith("data:")) shown.loading = "lazy";
  shown.src = image.src;
  frame.append(shown);
  if (side) live?.enlarge(shown, image, side);
  if (map && gridOf(image)) overlay(frame, map, gridOf(image));
  return frame;
}

const gridOf = (image) => image.grid || about().pictures.grid;

function overlay(frame, map, grid) {
  const canvas = el("canvas", { class: "map", "aria-hidden": "true" });
  drawMap(canvas, map, grid);
  frame.append(canvas);
}

function describe(image) {
  return known(image.class) ? `${image.id}, ${calledName(image.class)}` : image.id;
}

// shots: [[image, value, map], ...] of `feature`; own: the class whose page this is, if it is one.
function strip(shots, feature, own) {
  if (!shots.length) return el("p", { class: "empty" }, `No ${things()}.`);
  const views = shots.map(([index, value, map]) => ({ index, map, feature, value }));
  const holder = el("div", { class: "strip", style: { "--n": Math.max(shots.length, 4) } }, views.map((view, place) => {
    const image = item("image", view.index);
    const title = image ? `${describe(image)} · feature ${feature}: ${number(view.value)}` : "";
    const other = image && known(image.class) && !isCalled(image.class, own);
    return el("figure", { class: "shot" },
      el("button", { type: "button", title, onclick: () => openViewer(views, place) }, picture(view.index, view.map)),
      el("figcaption", null, el("b", null, number(view.value)),
        other && el("bdi", { title: calledName(image.class) }, calledName(image.class))));
  }));
  live?.mapLater(holder, views);
  return holder;
}

function openViewer(views, place) {
  const dialog = el("dialog", { class: "viewer", "aria-label": capital(thing()) });
  const show = (next) => {
    const at = (next + views.length) % views.length;
    const view = views[at];
    const image = item("image", view.index);
    const step = (by, label, glyph) => el("button", {
      type: "button", class: "tool", "aria-label": label, onclick: () => show(at + by),
    }, el("span", { class: "glyph" }, glyph));
    const large = picture(view.index, view.map, null, 640);
    if (!view.map) live?.mapLater(large, [view]);
    dialog.replaceChildren(
      large,
      el("div", { class: "facts-of" },
        el("p", { class: "id" }, el("bdi", null, image?.id || `no ${thing()}`)),
        el("dl", { class: "facts" },
          image && known(image.class) && fact(isMultiLabel() ? "Labels" : "Label", calledLinks(image.class)),
          image && known(image.predicted) && fact("The network says", calledLinks(image.predicted)),
          known(view.value) && fact(view.named || ["Feature ", featureLink(view.feature)], number(view.value))),
        live?.imageLinks(image),
        el("div", { class: "row" }, step(-1, `Previous ${thing()}`, "←"), step(1, `Next ${thing()}`, "→"),
          el("button", { type: "button", class: "tool close", onclick: () => dialog.close() }, "Close"))));
    dialog.onkeydown = (event) => {
      if (event.key === "ArrowLeft") show(at - 1);
      else if (event.key === "ArrowRight") show(at + 1);
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
    dialog.querySelector(".close").focus();
  };
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("a")) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  show(place);
}

function mapKey() {
  const { maps, note, signed: both } = about().pictures;
  if (!maps) return note ? el("p", { class: "note" }, note) : null;
  if (both === false) return el("p", { class: "note map-key", title: note || null }, el("i", { class: "warm" }), el("span", null, "raises the feature"));
  return el("p", { class: "note map-key", title: note || null }, el("span", null, "lowers"), el("i"), el("span", null, "raises the feature"));
}
