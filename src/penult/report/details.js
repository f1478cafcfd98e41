// The pages of one class, one feature and one mistake.

const missing = (title, text) => ({ title, content: [el("h1", { tabindex: "-1" }, title), el("p", { class: "empty" }, text)] });

const noClass = () => missing("No such class", `The classes have the numbers 0 to ${count(about().classes.length - 1)}.`);

// order: the things in the order in which the arrows go through them.
function pager(kind, index, order, name) {
  const at = order.indexOf(index);
  const link = (to, label, glyph) => (to < 0 || to >= order.length
    ? el("span", { class: "tool off", "aria-hidden": "true" }, el("span", { class: "glyph" }, glyph))
    : el("a", { class: "tool", href: `#${kind}/${order[to]}`, "aria-label": label, title: `${label}: ${name(order[to])}`, rel: to < at ? "prev" : "next" }, el("span", { class: "glyph", "aria-hidden": "true" }, glyph)));
  return el("div", { class: "pager" }, link(at - 1, `Previous ${kind}`, "←"), link(at + 1, `Next ${kind}`, "→"));
}

const numbered = (total) => Array.from({ length: total }, (_, i) => i);

function top(kind, index, order, name, eyebrow, title) {
  return el("div", { class: "top" },
    el("div", null, el("p", { class: "eyebrow" }, eyebrow), el("h1", { tabindex: "-1" }, title)),
    pager(kind, index, order, name));
}

function classView(c) {
  const row = about().classes[c];
  if (!row) return noClass();
  const detail = item("class", c);
  const difference = known(row.dense) && known(row.sparse) ? row.sparse - row.dense : null;
  return {
    title: row.name,
    content: [
      top("class", c, classOrder(), className, `Class ${count(c)}`, el("bdi", null, row.name)),
      el("dl", { class: "numbers" },
        el("div", { class: hasSparse() ? null : "chosen" }, el("dt", null, "Network (dense head)"), el("dd", null, percent(row.dense)), el("dd", { class: "note" }, isMultiLabel() ? `of the decisions on it right; never giving it: ${percent(row.always_no)}` : `of its ${things()} right`)),
        hasSparse() && el("div", { class: "chosen" }, el("dt", null, "Sparse head"), el("dd", null, percent(row.sparse)), el("dd", { class: "note" }, known(difference) ? `${points(difference)} points` : "not known")),
        live?.classNow(c),
        el("div", null, el("dt", null, capital(things())), el("dd", null, count(row.n_eval)), el("dd", { class: "note" }, `${isMultiLabel() ? "have it, " : ""}evaluated; ${count(row.n_samples)} analysed`), live?.classImages(c)),
        isMultiLabel() ? oneAgainstRest(c, row) : [el("div", null, el("dt", null, "Sufficient reason"), el("dd", null, short(row.reason)), el("dd", { class: "note" }, known(row.reason) ? "features guarantee a prediction, median" : "not computed")),
        el("div", null, el("dt", null, "Most often taken for"), el("dd", { class: "name" }, classLink(row.confused)),
          el("dd", { class: "note" }, mistakesLink(c, "Its mistakes")))]),
      detail ? classTraits(c, detail) : el("p", { class: "empty" }, "This page keeps no details of the class; its features: ", someFeatures(row.features, row.kept)),
      detail && confusions(c, detail),
    ],
  };
}

// How a class of multi-label data is decided by itself.
function oneAgainstRest(c, row) {
  return [
    el("div", null, el("dt", null, "Average precision"), el("dd", null, percent(row.average_precision)), el("dd", { class: "note" }, `by guessing ${percent(1 - row.always_no)}`)),
    el("div", null, el("dt", null, "Missed"), el("dd", null, count(row.missed)), el("dd", { class: "note" }, `of the ${count(row.n_eval)} that have it`)),
    el("div", null, el("dt", null, "Falsely given"), el("dd", null, count(row.false)), el("dd", { class: "note" }, mistakesLink(c, "Its mistakes")))];
}

const ABSENCE = "its absence speaks for this class";
const byAbsence = (trait) => trait.weight < 0 && trait.influence > 0;

function traitsText(c, detail) {
  if (about().classes.length === 2 && !isMultiLabel()) {
    return `Of two classes only the difference of their logits counts: what stands here is ${className(c)} less ${className(1 - c)}. Orange moves the class's own ${things()} towards it, blue away. The bias is ${signed(detail.bias)}, the mean difference ${signed(detail.logit)}.`;
  }
  const order = detail.features.some((trait) => !known(trait.influence))
    ? `Ordered by weight, as there are no ${things()} of this class, or of others, to compare`
    : `Ordered by how far each moves the class in the network: its mean in the class less its mean elsewhere, times its weight. Orange raises the logit (the score) of the class's own ${things()}, blue lowers it`;
  return `${order}. The bias is ${signed(detail.bias)}${known(detail.logit) ? `, the mean logit ${signed(detail.logit)}` : ""}.`;
}

function classTraits(c, detail) {
  const reach = largestOf(detail.features.flatMap((trait) => [trait.mean, trait.elsewhere]));
  const [most] = detail.features;
  const strongest = largestOf(detail.features.map((trait) => trait.share));
  const shown = detail.features.some((trait) => trait.own.length + trait.others.length);
  const n = about().classes[c].kept.length;
  const kept = hasSparse() && ` The sparse head keeps ${n ? plural(n, "feature", "features") : "none"}, marked in green.`;
  return el("section", null,
    heading("What decides this class", [traitsText(c, detail), kept]),
    most && mapKey(),
    el("div", { class: shown ? "traits" : "traits plainly" }, detail.features.map((trait) => el("section", { class: `${Math.max(trait.own.length, trait.others.length) > 4 ? "trait" : "trait few"}${trait.kept ? " is-kept" : ""}` },
      el("div", { class: "trait-facts" },
        el("h3", null, el("a", { href: `#feature/${trait.feature}` }, "Feature ", el("b", null, String(trait.feature))), trait.kept && el("span", { class: "mark kept" }, KEPT), verdictMark(trait.feature, c)),
        el("p", { class: "share" }, el("b", null, whole(trait.share)), " of the network's evidence"),
        bar(trait.share / strongest, (trait.influence ?? trait.weight) < 0 ? "neg" : "pos", `${whole(trait.share)} of the network's evidence`),
        byAbsence(trait) ? el("p", { class: "note absence" }, ABSENCE) : null,
        el("dl", { class: "facts" },
          fact("Moves the logit by", signed(trait.influence)),
          fact("Weight", signed(trait.weight)),
          trait.kept && fact("In the sparse head", known(trait.sparse_share) ? `${whole(trait.sparse_share)}, weight ` : "weight ", signed(trait.sparse_weight))),
        live?.switches(trait.feature, c, trait),
        el("div", { class: "means" },
          el("span", null, "in the class"), bar(Math.abs(trait.mean) / reach, "own", ""), el("span", { class: "n" }, number(trait.mean)),
          el("span", null, "elsewhere"), bar(Math.abs(trait.elsewhere) / reach, "", ""), el("span", { class: "n" }, number(trait.elsewhere)))),
      trait.own.length || trait.others.length ? [
        el("div", { class: "trait-shots" }, el("h4", null, isMultiLabel() ? `From ${things()} with it` : "From this class"), strip(trait.own, trait.feature, c)),
        el("div", { class: "trait-shots" }, el("h4", null, isMultiLabel() ? `From ${things()} without it` : "From other classes"), strip(trait.others, trait.feature, c))] : null))),
    otherFeatures(c, detail));
}

// Those of a class of very many that are not taken apart.
function otherFeatures(c, detail) {
  const { features, kept: read } = about().classes[c];
  const rest = features.slice(detail.features.length);
  if (!rest.length) return null;
  const marked = new Set(read);
  return el("section", { class: "other-features" },
    heading(`${plural(rest.length, "more feature", "more features")}`, `The ${count(detail.features.length)} features above move the class most; numbers of the others stand on their own pages.`),
    el("p", { class: "some" }, rest.map((j) => keptLink(j, marked.has(j)))));
}

function confusions(c, detail) {
  if (isMultiLabel()) return wrongDecisions(c, detail);
  if (!detail.confusions.length) return el("section", null, heading("Confusions", `No ${thing()} of this class is taken for another, and none of another for it.`));
  const scale = largestOf(detail.confusions.flatMap((rival) => [...rival.features, ...(rival.misled || [])].map((f) => f.moves)));
  return el("section", null,
    heading("Confusions", [`The ${things()} that were taken for another class, and what the network saw in them. Bars in units of the logit: `, el("span", { class: "pos" }, "orange towards this class"), ", ", el("span", { class: "neg" }, "blue towards the other"), "."]),
    el("div", { class: "rivals" }, detail.confusions.map((rival) => confusion(c, rival, scale))));
}

// The images on which a class of multi-label data is missed, and those to which it is falsely given.
function wrongDecisions(c, detail) {
  if (!detail.confusions.length) return el("section", null, heading("Mistakes", "Every decision on this class is right."));
  const scale = largestOf(detail.confusions.flatMap((rival) => [...rival.features, ...(rival.misled || [])].map((f) => f.moves)));
  return el("section", null,
    heading("Mistakes", [`What separates the ${things()} that have the class from those that do not, and what the network saw in those on which it is missed. Bars in units of the logit: `, el("span", { class: "pos" }, "orange towards this class"), ", ", el("span", { class: "neg" }, "blue away from it"), "."]),
    el("div", { class: "rivals" }, detail.confusions.map((rival) => confusion(c, rival, scale))));
}

function confusion(c, rival, scale) {
  const name = (d) => el("bdi", null, className(d));
  const counts = (text, numbers, label) => el("tr", null, el("th", { scope: "row" }, text),
    numbers.slice(0, hasSparse() ? 2 : 1).map((n) => el("td", { class: "n" }, (n > 0 && mistakesLink(label, count(n))) || count(n))));
  const bars = (features) => el("div", { class: "ledger" }, features.map((f) => [
    featureLink(f.feature), diverging(f.moves, scale, `moves ${signed(f.moves)}`), el("span", { class: "n" }, signed(f.moves))]));
  const [n] = rival.to;
  return el("section", { class: "rival" },
    el("h3", null, classLink(rival.class), live?.pairImages(c, rival)),
    el("table", { class: "plain" },
      el("thead", null, el("tr", null, el("td"), el("th", { scope: "col", class: "n" }, "network"), hasSparse() && el("th", { scope: "col", class: "n" }, "sparse head"))),
      el("tbody", null,
        counts(isMultiLabel() ? `${things()} that have it, and are not given it` : `its ${things()} taken for the other`, rival.to, c),
        counts(isMultiLabel() ? `${things()} without it that are given it` : "the other's taken for it", rival.from, isMultiLabel() ? c : rival.class))),
    el("h4", null, "What separates the average ", name(c), " from the average ", name(rival.class)),
    bars(rival.features),
    rival.misled?.length ? [
      el("h4", null, n === 1 ? "In the one that the network takes for " : `In the ${count(n)} that the network takes for `, name(rival.class), n === 1 ? ": what moved it there" : ": what moved them there"),
      bars(rival.misled)] : null);
}

function featureView(j) {
  const row = about().features[j];
  if (!row) return missing("No such feature", `The features have the numbers 0 to ${count(about().features.length - 1)}.`);
  const detail = item("feature", j);
  const warnings = [];
  if (hasSparse() && row.deciding && !row.readers) warnings.push([`It is among the features that decide ${plural(row.deciding, "class", "classes")} in the network, and the sparse head leaves it out: what the sparse head says does not show what this feature does.`]);
  if (row.dead) warnings.push([`It is dead: it has the same value on all ${things()}, so no class can learn from it.`]);
  else if (row.flat) warnings.push([`It hardly differs between the classes: ${percent(row.share)} of its variance lies between them.`]);
  if (known(row.twin)) {
    const r = detail && known(detail.correlation) ? `: their correlation is ${minus(detail.correlation.toFixed(3))}` : "";
    warnings.push(["It duplicates ", el("a", { href: `#feature/${row.twin}` }, `feature ${row.twin}`), `${r}. One of the two would do.`]);
  }
  return {
    title: `Feature ${j}`,
    content: [
      top("feature", j, numbered(about().features.length), (to) => `feature ${to}`, "Feature", String(j)),
      warnings.length ? el("div", { class: "warnings" }, warnings.map((text) => el("p", null, text))) : null,
      featureVerdicts(j),
      el("dl", { class: "numbers" },
        el("div", { class: "chosen" }, el("dt", null, "Evidence in the network"), el("dd", null, percent(row.evidence)), el("dd", { class: "note" }, "of what moves a class, mean over the classes")),
        el("div", null, el("dt", null, "Decides"), el("dd", null, count(row.deciding)), el("dd", { class: "note" }, row.deciding === 1 ? "class more than most other features" : "classes more than most other features")),
        hasSparse() && el("div", null, el("dt", null, "Kept for"), el("dd", null, count(row.readers)), el("dd", { class: "note" }, row.readers === 1 ? "class of the sparse head" : "classes of the sparse head")),
        el("div", null, el("dt", null, "Strongest in"), el("dd", { class: "name" }, classLink(row.best))),
        el("div", null, el("dt", null, "Mean"), el("dd", null, number(row.mean)), detail && el("dd", { class: "note" }, `from ${number(detail.range[0])} to ${number(detail.range[1])}`)),
        !isMultiLabel() && el("div", null, el("dt", null, "Between classes"), el("dd", null, percent(row.share)), el("dd", { class: "note" }, "of its variance"))),
      detail ? featureDetail(j, detail) : el("p", { class: "empty" }, "This page keeps no details of the feature."),
    ],
  };
}

// What people said of the feature.
function featureVerdicts(j) {
  const said = (about().verdicts || []).filter((verdict) => verdict.feature === j);
  if (!said.length) return null;
  return el("ul", { class: "verdicts" }, said.map((verdict) => el("li", null, verdictMark(j, verdict.class),
    verdict.class === null ? "for all classes" : ["for ", classLink(verdict.class)], verdict.note ? [": ", el("bdi", null, verdict.note)] : null)));
}

function featureDetail(j, detail) {
  const weights = largestOf([...detail.readers, ...detail.network].map((r) => r.weight));
  const weightRow = (r) => [
    el("span", { class: "who" }, classLink(r.class)), diverging(r.weight, weights, `weight ${signed(r.weight)}`),
    el("span", { class: "n" }, signed(r.weight)), el("span", { class: "n note" }, known(r.share) ? whole(r.share) : "")];
  return [
    detail.shots.length ? el("section", { class: "featured" }, heading("Where it is strongest", [`The ${things()} of the whole data set with the largest values.`, live?.featureImages(j)]), mapKey(), strip(detail.shots, j, null)) : null,
    live?.featureSwitches(j, detail),
    el("div", { class: "pair" },
      el("section", null, heading("What it moves in the network", "The classes that it moves most: its weight, and its share of the class's evidence."),
        el("div", { class: "ledger named" }, detail.network.map(weightRow))),
      hasSparse() && el("section", null, heading("Which classes of the sparse head keep it", "Its weight there, and its share of the class's evidence."),
        detail.readers.length ? el("div", { class: "ledger named" }, detail.readers.map(weightRow))
          : el("p", { class: "empty" }, "The sparse head keeps it for no class."))),
    detail.distribution.length ? distribution(detail) : null,
  ];
}

// One histogram for each class over one axis; heights by the root, that rare values can be seen.
function distribution(detail) {
  const [low, high] = detail.range;
  const shares = detail.distribution.map((row) => row.counts.map((n) => Math.sqrt(n / (row.n || 1))));
  const tallest = largestOf(shares.flat());
  const place = (value) => (high > low ? Math.min(100, Math.max(0, 100 * (value - low) / (high - low))) : 50);
  const rows = detail.distribution.map((row, at) => {
    const bins = shares[at];
    const width = 100 / bins.length;
    const path = bins.map((share, i) => `L${i * width} ${28 - 26 * share / tallest}L${(i + 1) * width} ${28 - 26 * share / tallest}`).join("");
    const label = known(row.class) ? className(row.class) : "all other classes";
    return [
      el("span", { class: "who" }, known(row.class) ? classLink(row.class) : label),
      el("span", { class: "ridge", role: "img", "aria-label": `${label}: mean ${number(row.mean)}` },
        svg("svg", { viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true" },
          svg("path", { class: known(row.class) ? "ridge-area" : "ridge-area rest", d: `M0 28${path}L100 28Z` })),
        el("i", { style: { left: `${place(row.mean)}%` }, title: `mean ${number(row.mean)}` })),
      el("span", { class: "n" }, number(row.mean))];
  });
  const steps = ticks(low, high);
  return el("section", null,
    heading("How it is distributed", "One row for each class, the mean as a line; heights by square root, so that rare values can be seen."),
    el("div", { class: "ridges" },
      el("span"), el("span"), el("span", { class: "n note" }, "mean"), rows,
      el("span"), el("span", { class: "ridge-axis" }, steps.map((value) => el("b", { style: { left: `${place(value)}%` } }, short(value)))), el("span")));
}

function ticks(low, high) {
  if (!(high > low)) return [low];
  const raw = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step / 1e6 ? 0 : value);
  return found;
}

function mistakeView(index) {
  const { rows } = about().mistakes;
  const row = rows[index];
  if (!row) return missing("No such mistake", rows.length ? `The mistakes have the numbers 0 to ${count(rows.length - 1)}.` : "No mistakes are shown in this page.");
  const reasons = item("mistake", index) || [];
  const image = item("image", row.image);
  const scale = largestOf(reasons.flatMap((r) => [r.gap, r.rest, r.bias, ...r.features.map((f) => f[2])]));
  const large = el("div", { class: "large" }, picture(row.image, null, row.id, 640));
  const show = (map) => map && large.replaceChildren(picture(row.image, map, row.id, 640));
  const verdict = (said) => el("span", { class: said === row.label ? "verdict right" : "verdict wrong" }, classLink(said), said === row.label ? " right" : " wrong");
  return {
    title: `Mistake ${index}: ${className(row.label)}`,
    content: [
      top("mistake", index, numbered(rows.length), (to) => className(rows[to].label), [el("span", null, `Mistake ${count(index)}`), el("span", null, kindName(row.kind))],
        [el("bdi", null, className(row.label)), el("span", { class: "as" }, ` ${takenFor()} `), el("bdi", null, className(row.kind === "only-dense" ? row.dense : row.sparse))]),
      el("div", { class: "inquest" },
        el("aside", null, large,
          el("p", { class: "id" }, el("bdi", null, image ? image.id : row.id)),
          el("dl", { class: "facts" }, fact("Label", classLink(row.label)), isMultiLabel() && image && fact("All its labels", calledLinks(image.class)), fact("Network", verdict(row.dense)), hasSparse() && fact("Sparse head", verdict(row.sparse))),
          live?.imageLinks(image),
          about().pictures.maps ? el("p", { class: "note" }, `Point at a feature to see its map on the ${thing()}.`) : null, mapKey()),
        reasons.map((reason) => reasonPanel(row, reason, scale, show))),
    ],
  };
}

function reasonPanel(row, reason, scale, show) {
  const line = (name, value, kind, extra) => el("div", { class: `line ${kind || ""}`, ...extra }, name,
    diverging(value, scale, signed(value)), el("span", { class: "n" }, signed(value)));
  const views = reason.features.map(([feature, value, , map]) => ({ index: row.image, feature, value, map }));
  const mapped = (view) => view.map || live?.canMap(view);
  const terms = el("div", null, reason.features.map(([j, value, contribution], place) => line(
    el("span", { class: "term" }, mapped(views[place]) ? picture(row.image, views[place].map) : null, featureLink(j), el("span", { class: "note" }, `= ${number(value)}`)),
    contribution, mapped(views[place]) ? "with-map" : "", mapped(views[place]) ? { onmouseenter: () => show(views[place].map), onfocusin: () => show(views[place].map) } : {})));
  live?.mapLater(terms, views.filter(mapped));
  return el("section", { class: `reason ${reason.head}` },
    el("h2", null, reason.head === "dense" ? "Network: " : "Sparse head: ", el("span", null, "why ", classLink(reason.for), " rather than ", classLink(reason.against))),
    el("div", { class: "sum" },
      terms,
      line(el("span", { class: "term" }, "all other features"), reason.rest, "other"),
      line(el("span", { class: "term" }, "bias"), reason.bias, "other"),
      line(el("span", { class: "term" }, "together"), reason.gap, "total")));
}
