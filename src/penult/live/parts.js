// Parts: details of classes, features and mistakes, loaded when a view needs them.

const coming = new Map(); // what is on its way: id → {promise, controller, wanted}

const partId = (kind, index) => `data-${kind}-${Math.floor(index / about().chunks[kind])}`;
const isLoaded = ([kind, index]) => Boolean(parsed.get(partId(kind, index)));

function takeImages(images) {
  const size = about().chunks.image;
  for (const [number, image] of Object.entries(images || {})) {
    const id = `data-image-${Math.floor(number / size)}`;
    if (!parsed.get(id)) parsed.set(id, []);
    parsed.get(id)[number % size] ||= image;
  }
}

// Resolves once all are there: [["class", 3], …]. A signal that aborts ends what nobody else wants.
async function need(wanted, signal) {
  const missing = new Map(wanted.filter((one) => !isLoaded(one)).map((one) => [partId(...one), one]));
  await Promise.all([...missing].map(([id, one]) => load(id, one, signal)));
}

function load(id, [kind, index], signal) {
  let on = coming.get(id);
  if (!on) {
    const controller = new AbortController();
    const path = `api/part/${kind}/${Math.floor(index / about().chunks[kind])}`;
    const promise = ask(path, { signal: controller.signal }).then((part) => {
      takeImages(part.images);
      parsed.set(id, part.items);
    }).finally(() => coming.delete(id));
    on = { promise, controller, wanted: 0 };
    coming.set(id, on);
  }
  on.wanted += 1;
  const leave = () => { if (!--on.wanted) { on.controller.abort(); coming.delete(id); } };
  signal?.addEventListener("abort", leave, { once: true });
  return on.promise.finally(() => signal?.removeEventListener("abort", leave));
}

// What each view needs; others load for themselves.
const NEEDS = {
  class: (argument) => wantedOf("class", classNumber(argument), about().classes.length),
  feature: (argument) => wantedOf("feature", Number(argument), about().features.length),
  mistake: (argument) => wantedOf("mistake", Number(argument), about().mistakes.rows.length),
  mistakes: () => about().mistakes.rows.map((row, index) => ["mistake", index]),
};
const wantedOf = (kind, index, n) => (Number.isInteger(index) && index >= 0 && index < n ? [[kind, index]] : []);

let leaving = new AbortController(); // aborted when one goes to another view

// A promise of whether the view can be drawn; null where it can be at once.
function prepare(name, argument) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const suspects = (name === "suspects" || name === "suspect") && !parsed.get("data-suspects");
  const wanted = NEEDS[name]?.(argument) || [];
  if (!suspects && wanted.every(isLoaded)) return null;
  const timer = setTimeout(() => {
    root.dataset.view = "other";
    other.replaceChildren(el("p", { class: "wait", role: "status" }, "Reading…"));
  }, QUIET);
  return Promise.all([need(wanted, signal), suspects && loadSuspects(signal)]).then(() => !signal.aborted, (error) => {
    if (signal.aborted) return false;
    clearTimeout(timer);
    root.dataset.view = "other";
    other.replaceChildren(el("h1", { tabindex: "-1" }, "This could not be read"), failed(error),
      el("button", { type: "button", class: "tool", onclick: () => show(current) }, "Try again"));
    return false;
  }).finally(() => clearTimeout(timer));
}

async function loadSuspects(signal) {
  const found = await ask("api/suspects", { signal });
  takeImages(found.images);
  parsed.set("data-suspects", found.suspects);
}

// In place of what stands in a row of a list: made once it comes into sight.
const inSight = new WeakMap();
const sight = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    sight.unobserve(target);
    inSight.get(target)?.();
  }
}, { rootMargin: "300px" });

function whenSeen(node, call) {
  inSight.set(node, call);
  sight.observe(node);
  return node;
}

function later(kind, index, make, most) {
  if (isLoaded([kind, index])) return null;
  const holder = el("span", { class: "row-thumbs", style: { "min-width": `${44 * most}px` } }, el("span", { class: "frame empty-frame" }));
  const { signal } = leaving;
  return whenSeen(holder, () => need([[kind, index]], signal).then(() => holder.replaceWith(make(item(kind, index))), () => {}));
}

// The picture in more pixels, once they have come.
function enlarge(shown, image, side) {
  const larger = new Image();
  larger.onload = () => { shown.src = larger.src; };
  larger.src = `${image.src}${image.src.startsWith("data:") ? "" : `?side=${side}`}`;
}
