// Lists: tables of classes and features, cards of mistakes; sorted, filtered, rendered in steps.

const STEP = 120;
const kept = {}; // how each list was left: filter, order and length

const turns = new WeakMap();

// Fill `holder` with make(entry) for the first entries; more as the end comes into sight.
function inSteps(holder, entries, make, state) {
  const more = el("button", { type: "button", class: "tool more-rows" });
  const after = el("p", { class: "more-rows-line" }, more);
  let n = 0;
  const turn = {};
  turns.set(holder, turn);
  const grow = (to) => {
    if (turns.get(holder) !== turn) return; // the list was filled anew meanwhile
    holder.append(...entries.slice(n, to).map(make));
    n = Math.max(n, Math.min(to, entries.length));
    state.shown = n;
    more.textContent = `Show ${count(Math.min(STEP, entries.length - n))} more`;
    after.hidden = n >= entries.length;
  };
  more.addEventListener("click", () => grow(n + STEP));
  const watcher = new IntersectionObserver((seen) => {
    if (seen.some((entry) => entry.isIntersecting)) grow(n + STEP);
  }, { rootMargin: "600px" });
  grow(Math.max(STEP, state.shown || 0));
  watcher.observe(after);
  beforePrint = () => grow(entries.length);
  return after;
}

let beforePrint = null; // a printed list is whole

// columns: [{title, value: entry → what it is ordered by, cell: entry → content, kind, hint}]
function table(name, columns, entries, matches, placeholder, presets) {
  const state = (kept[name] ||= { query: "", column: 0, down: false });
  const body = el("tbody");
  const counted = el("span", { class: "counted", role: "status" });
  const after = el("div");
  const heads = columns.map((column, place) => {
    const button = el("button", { type: "button", title: column.hint, onclick: () => {
      state.down = state.column === place ? !state.down : Boolean(column.down);
      state.column = place;
      fill();
    } }, column.title, el("span", { class: "order", "aria-hidden": "true" }));
    return column.value ? el("th", { scope: "col", class: column.kind }, button) : el("th", { scope: "col", class: `${column.kind} plainly` }, column.title);
  });
  const fill = () => {
    const query = state.query.trim().toLowerCase();
    const rows = entries.filter((entry) => matches(entry, query, state.preset));
    const { value } = columns[state.column];
    rows.sort((a, b) => ordered(value(a), value(b), state.down));
    body.replaceChildren();
    heads.forEach((head, place) => {
      if (!columns[place].value) return;
      const here = place === state.column;
      head.setAttribute("aria-sort", here ? (state.down ? "descending" : "ascending") : "none");
    });
    counted.textContent = rows.length === entries.length ? count(rows.length) : `${count(rows.length)} of ${count(entries.length)}`;
    after.replaceChildren(inSteps(body, rows, (entry) => el("tr", null,
      columns.map((column) => el("td", { class: column.kind }, column.cell(entry)))), state));
    if (!rows.length) after.replaceChildren(el("p", { class: "empty" }, "Nothing matches."));
  };
  const refill = () => { state.shown = 0; fill(); };
  const input = el("input", { type: "search", placeholder, "aria-label": placeholder, oninput: () => { state.query = input.value; refill(); } });
  input.value = state.query;
  const choices = (presets || []).map(([key, label]) => el("button", {
    type: "button", class: "tool", "aria-pressed": String((state.preset || "") === key), onclick: (event) => {
      state.preset = key;
      for (const other of choices) other.setAttribute("aria-pressed", String(other === event.currentTarget));
      refill();
    } }, label));
  fill();
  return [
    el("div", { class: "filter" }, input, choices.length ? el("div", { class: "choices" }, choices) : null, counted),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": placeholder },
      el("table", { class: "listing" }, el("thead", null, el("tr", null, heads)), body)),
    after,
  ];
}

const collator = new Intl.Collator(undefined, { numeric: true });

// Unknown values come last in both directions.
function ordered(a, b, down) {
  if (!known(a) || !known(b)) return known(a) ? -1 : known(b) ? 1 : 0;
  const order = typeof a === "string" ? collator.compare(a, b) : a - b;
  return down ? -order : order;
}

// kept: those of the features that the sparse head reads.
function someFeatures(features, kept) {
  const marked = new Set(kept || []);
  const shown = features.slice(0, 6).map((j) => keptLink(j, marked.has(j)));
  const rest = features.length - shown.length;
  return el("span", { class: "some" }, shown, rest > 0 && el("span", { class: "more" }, `+${rest}`));
}

function classesView() {
  const classes = classOrder().map((c, place) => {
    const row = about().classes[c];
    return { ...row, c, place, low: row.name.toLowerCase(),
      difference: known(row.dense) && known(row.sparse) ? row.sparse - row.dense : null };
  });
  const sparse = hasSparse();
  const low = classes.reduce((least, row) => Math.min(least, row.dense ?? 1, row.sparse ?? 1), 1);
  const pictured = about().pictures.n_images > about().pictures.n_missing;
  const columns = [
    { title: "No.", value: (r) => r.place, cell: (r) => count(r.c), kind: "n", hint: `the number of the class; classes with ${things()} come first` },
    pictured && { title: "", cell: (r) => thumbsOf("class", r.c, (detail) => detail.features[0]?.own, 1), kind: "thumbs" },
    { title: "Class", value: (r) => r.low, cell: (r) => classLink(r.c), kind: "who" },
    { title: "Samples", value: (r) => r.n_samples, cell: (r) => count(r.n_samples), kind: "n", down: true, hint: `${things()} of the class that were analysed` },
    { title: "Network", value: (r) => r.dense, cell: (r) => percent(r.dense), kind: "n", hint: isMultiLabel() ? `decisions on the class, on all ${things()}, that the network (dense head) has right` : `${things()} of the class that the network (dense head) gets right` },
    sparse && { title: "Sparse head", value: (r) => r.sparse, cell: (r) => percent(r.sparse), kind: "n", hint: isMultiLabel() ? `decisions on the class, on all ${things()}, that the sparse head has right` : `${things()} of the class that the sparse head gets right` },
    sparse && { title: "Difference", value: (r) => r.difference, kind: "n wide", hint: `sparse head less network, in percentage points; the dots on one axis from ${percent(low)} to 100%`,
      cell: (r) => [dumbbell(r.dense, r.sparse, low), el("span", { class: "aligned" }, points(r.difference))] },
    isMultiLabel() && { title: "Average precision", value: (r) => r.average_precision, cell: (r) => percent(r.average_precision), kind: "n", hint: `area under the curve of precision over recall; by guessing, the part of the ${things()} that have the class` },
    isMultiLabel() && { title: "Have it", value: (r) => r.n_eval, cell: (r) => count(r.n_eval), kind: "n", down: true, hint: `evaluated ${things()} that have the class` },
    isMultiLabel() && { title: "Always no", value: (r) => r.always_no, cell: (r) => percent(r.always_no), kind: "n", hint: "right by never giving the class" },
    isMultiLabel() && { title: "Missed", value: (r) => r.missed, cell: (r) => mistakesLink(r.c, count(r.missed)) || count(r.missed), kind: "n", down: true, hint: `${things()} that have the class and to which the network does not give it` },
    isMultiLabel() && { title: "False", value: (r) => r.false, cell: (r) => count(r.false), kind: "n", down: true, hint: `${things()} without the class to which the network gives it` },
    { title: "Features", value: (r) => r.features.length, cell: (r) => someFeatures(r.features, r.kept), hint: sparse ? "those that move the class most in the network first; green: kept by the sparse head" : "those that move the class most in the network first", down: true },
    live && { title: "After edits", value: (r) => live.after(r.c), cell: (r) => live.afterCell(r.c), kind: "n", hint: `${isMultiLabel() ? "decisions on the class" : `${things()} of the class`} that are right with the edits below` },
    !isMultiLabel() && { title: "Most often taken for", value: (r) => (known(r.confused) ? className(r.confused).toLowerCase() : null), cell: (r) => classLink(r.confused), kind: "who" },
    !isMultiLabel() && { title: "Reason", value: (r) => r.reason, cell: (r) => short(r.reason), kind: "n", hint: `features that guarantee a prediction of the network (a sufficient reason), median of its ${things()}` },
  ].filter(Boolean);
  const some = classes.some((r) => hasImages(r.c));
  const presets = some && classes.some((r) => !hasImages(r.c)) ? [["", `With ${things()}`], ["all", "All"]] : null;
  const matches = (row, query, preset) => (!presets || preset === "all" || hasImages(row.c))
    && (!query || row.low.includes(query) || String(row.c) === query);
  return {
    title: "Classes",
    content: [
      el("h1", { tabindex: "-1" }, "Classes"),
      table("classes", columns, classes, matches, "Filter classes by name or number", presets),
    ],
  };
}

// The first few of the images on which a feature is strongest.
function thumbs(shots, most) {
  return el("span", { class: "row-thumbs" }, (shots || []).slice(0, most).map(([index, , map]) => picture(index, most > 1 ? map : null)));
}

// Of a class or a feature whose details the app may have to load, once they are in sight.
function thumbsOf(kind, index, shots, most) {
  const make = (detail) => thumbs(detail && shots(detail), most);
  return live?.later(kind, index, make, most) ?? make(item(kind, index));
}

function featureMarks(feature) {
  const marks = [];
  if (live) marks.push(live.marks(feature.j));
  if (feature.dead) marks.push(el("span", { class: "mark" }, "dead"));
  if (feature.flat && !feature.dead) marks.push(el("span", { class: "mark" }, "flat"));
  if (known(feature.twin)) marks.push(el("span", { class: "mark" }, "twin of ", featureLink(feature.twin)));
  return marks;
}

function featuresView(preset) {
  const features = about().features.map((row, j) => ({ ...row, j }));
  const sparse = hasSparse();
  const tests = { dead: (r) => r.dead, flat: (r) => r.flat && !r.dead, twins: (r) => known(r.twin),
    read: (r) => r.readers > 0, left: (r) => sparse && r.deciding > 0 && !r.readers };
  const presets = [["", "All"], ["read", "Kept by the sparse head"], ["left", "Left out by the sparse head"], ["dead", "Dead"], ["flat", "Flat"], ["twins", "Twins"]]
    .filter(([key]) => !key || features.some(tests[key]));
  const classes = (n, none) => (n ? plural(n, "class", "classes") : none);
  const columns = [
    { title: "Feature", value: (r) => r.j, cell: (r) => keptLink(r.j, r.readers > 0), kind: "first" },
    about().pictures.n_images > about().pictures.n_missing && { title: "Strongest on", cell: (r) => thumbsOf("feature", r.j, (detail) => detail.shots, 4), kind: "thumbs" },
    { title: "Evidence in the network", value: (r) => r.evidence, kind: "n wide", down: true, hint: "its part of what moves a class in the network, mean over the classes",
      cell: (r) => [known(r.evidence) ? bar(r.evidence / largest, "own", "") : null, el("span", { class: "aligned" }, percent(r.evidence))] },
    { title: "Decides", value: (r) => r.deciding, cell: (r) => classes(r.deciding, "–"), kind: "n", down: true, hint: "classes of the network that it moves more than most other features do" },
    sparse && { title: "Kept for", value: (r) => r.readers, cell: (r) => classes(r.readers, "no class"), kind: "n", down: true, hint: "classes of the sparse head that read it" },
    { title: "Strongest in", value: (r) => (known(r.best) ? className(r.best).toLowerCase() : null), cell: (r) => classLink(r.best), kind: "who" },
    { title: "Mean", value: (r) => r.mean, cell: (r) => number(r.mean), kind: "n", down: true },
    !isMultiLabel() && { title: "Between classes", value: (r) => r.share, cell: (r) => percent(r.share), kind: "n", down: true, hint: "part of its variance that lies between the classes" },
    { title: "Remarks", value: (r) => (r.dead ? 0 : r.flat ? 1 : known(r.twin) ? 2 : null), cell: featureMarks },
  ].filter(Boolean);
  const largest = largestOf(features.map((r) => r.evidence));
  kept.features ||= { query: "", column: columns.findIndex((column) => column.title === "Evidence in the network"), down: true };
  if (preset !== undefined && (preset === "" || tests[preset])) kept.features.preset = preset;
  const matches = (row, query, chosen) => (!chosen || tests[chosen](row))
    && (!query || String(row.j) === query || (known(row.best) && className(row.best).toLowerCase().includes(query)));
  return {
    title: "Features",
    content: [
      el("h1", { tabindex: "-1" }, "Features"),
      table("features", columns, features, matches, "Filter by number or by class", presets),
    ],
  };
}

const KINDS = {
  "only-sparse": "Only the sparse head is wrong",
  "only-dense": "Only the network is wrong",
  both: "Both are wrong",
};

const SHORT_KINDS = { "only-sparse": "only sparse head", "only-dense": "only network", both: "both wrong" };

const kindName = (kind) => (hasSparse() ? KINDS[kind] : "The network is wrong");

// "the surest 100 of 604 that both heads get wrong"
function extent(rows, kind, total, text) {
  const n = rows.filter((row) => row.kind === kind).length;
  if (!total) return null;
  const part = n < total ? `${n ? `the surest ${count(n)}` : "none"} of ` : total > 1 ? "all " : "the ";
  return `${part}${count(total)} that ${text} wrong`;
}

function mistakesText({ rows, n_samples: among, n_both: both, n_only_dense: dense, n_only_sparse: sparse }) {
  const judged = isMultiLabel() ? plural(among, `decision, one for each ${thing()} and class`, `decisions, one for each ${thing()} and class`) : plural(among, "image", things());
  const text = `${plural(both + dense + sparse, "mistake", "mistakes")} among ${judged}.`;
  const parts = [extent(rows, "both", both, hasSparse() ? "both the network and the sparse head get" : "the network gets"), extent(rows, "only-dense", dense, "only the network gets"),
    extent(rows, "only-sparse", sparse, "only the sparse head gets")].filter(Boolean);
  return rows.length ? `${text} Shown in this order: ${parts.join("; ")}.` : text;
}

// label: a class, whose own images alone are shown; null for the images of every class.
function mistakesView(label) {
  const { mistakes } = about();
  const state = (kept.mistakes ||= { kind: "", label: "" });
  const asked = known(label) ? String(label) : "";
  if (state.label !== asked) Object.assign(state, { kind: "", label: asked, shown: 0 });
  const rows = mistakes.rows.map((row, index) => ({ ...row, index }));
  const labels = [...new Set([...rows.map((row) => (isMultiLabel() ? row.label % about().classes.length : row.label)), ...(asked ? [label] : [])])].sort((a, b) => a - b);
  const grid = el("div", { class: "cases" });
  const after = el("div");
  const counted = el("span", { class: "counted", role: "status" });
  const fill = () => {
    const fits = rows.filter((row) => (!state.kind || row.kind === state.kind)
      && (state.label === "" || isMistakeOf(row, Number(state.label))));
    grid.replaceChildren();
    counted.textContent = fits.length === rows.length ? count(rows.length) : `${count(fits.length)} of ${count(rows.length)}`;
    const none = !rows.length ? "No mistakes are shown in this page." : state.kind ? "Nothing matches." : "No mistake of this class is shown in this page.";
    after.replaceChildren(fits.length ? inSteps(grid, fits, mistakeCard, state) : el("p", { class: "empty" }, none));
  };
  const choose = (key, title, options) => {
    const select = el("select", { onchange: () => {
      state[key] = select.value;
      state.shown = 0;
      fill();
      readdress(state.label ? `mistakes/${state.label}` : "mistakes");
    } }, options.map(([value, text]) => el("option", { value }, text)));
    select.value = state[key];
    return el("label", { class: "choice" }, title, select);
  };
  fill();
  return {
    title: "Mistakes",
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, "Mistakes"), el("p", null, mistakesText(mistakes))),
      rows.length ? el("div", { class: "filter" },
        hasSparse() && choose("kind", "Show", [["", "All mistakes"], ...Object.entries(KINDS)]),
        choose("label", isMultiLabel() ? "Class" : "Label", [["", "All classes"], ...labels.map((c) => [String(c), className(c)])]), counted) : null,
      grid, after,
    ],
  };
}

function mistakeCard(row) {
  const said = row.kind === "only-dense" ? row.dense : row.sparse;
  return el("a", { class: `case ${row.kind}`, href: `#mistake/${row.index}` }, picture(row.image, null, row.id),
    el("span", { class: "said" }, el("bdi", { title: className(row.label) }, className(row.label)),
      el("span", { class: "as" }, takenFor()), el("bdi", { title: className(said) }, className(said))),
    hasSparse() && el("span", { class: "mark" }, SHORT_KINDS[row.kind]));
}
