// Edits: heads before and after what a person changed, and the images that flip.

const headName = (head) => (head === "dense" ? "the network's own head" : `the sparse head ${head.select}, k = ${head.k}`);

function editsView() {
  const found = bundle("data-edits") || [];
  const mends = bundle("data-mends") || [];
  if (!found.length && !mends.length && !live) return missing("No edits", "No edited head is kept in this run: penult edit RUN --out RUN/edited/NAME keeps one.");
  return {
    title: "Edits",
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, "Edits"),
        el("p", null, `Heads that a person has changed, measured on the same ${things()} before and after. The effect is exact: the logits are a sum over the features.`)),
      live?.nowCard(),
      found.length ? el("div", { class: "rivals" }, found.map((effect, index) => el("a", { class: "card", href: `#edit/${index}` },
        el("span", { class: "card-name" }, el("bdi", null, effect.name)),
        el("span", { class: "said" }, `${percent(effect.overall.before)} → ${percent(effect.overall.after)}`, el("span", { class: "as" }, `${plural(effect.edits.length, "edit", "edits")} of ${headName(effect.head)}; ${changed(effect.overall.loss)} points (${changedBetween(effect.overall.interval)})`))))) : null,
      mends.map(mendsSection),
    ],
  };
}

// What comes out where the second part of the images chooses the mend too.
const chosenMends = ({ best }) => [
  { ...best.with_groups, name: "chosen by the second part, with groups", groups_needed: true },
  { ...best.without_groups, name: "chosen by the second part, without groups", groups_needed: false },
];

function mendsSection(found) {
  return el("section", null,
    heading(["Mends by ", el("bdi", null, found.attribute), el("span", { class: "note" }, ` (${found.name})`)], `All ways to mend the head, under one protocol: fitted on one part of the ${things()}, chosen on a second, reported on a third; means over ${plural(found.seeds, "split", "splits")} of ${count(found.n_samples)} ${things()}.`),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Mends" }, el("table", { class: "plain" },
      el("thead", null, el("tr", null, ["Mend", "Needs groups", "Worst group", "its range", `Mean over the ${things()}`, "Mean over the groups", "Features"].map((text, i) => el("th", { scope: "col", class: i ? "n" : null }, text)))),
      el("tbody", null, [...found.mends, ...chosenMends(found)].map((row) => el("tr", { class: row.name === found.kept ? "chosen" : null },
        el("th", { scope: "row" }, row.name),
        el("td", { class: "n" }, row.groups_needed ? "yes" : "no"),
        el("td", { class: "n" }, percent(row.worst)),
        el("td", { class: "n" }, interval(row.worst_range)),
        el("td", { class: "n" }, percent(row.mean)),
        el("td", { class: "n" }, percent(row.mean_of_groups)),
        el("td", { class: "n" }, count(Math.round(row.features)))))))));
}

// argument: the number of an edit, or "now", the one that is being made in the app.
function editView(argument) {
  if (live && argument === "now") return live.nowView();
  const index = Number(argument);
  const found = bundle("data-edits") || [];
  const effect = found[index];
  if (!effect) return missing("No such edit", found.length ? `The edits have the numbers 0 to ${count(found.length - 1)}.` : "No edited head is kept in this run.");
  return {
    title: `Edit: ${effect.name}`,
    content: [
      top("edit", index, numbered(found.length), (to) => found[to].name, [el("span", null, "Edit"), el("span", null, headName(effect.head))], el("bdi", null, effect.name)),
      effectContent(effect),
    ],
  };
}

// Before and after of one edit: overall, by class and group, and what flips.
function effectContent(effect) {
  const { overall } = effect;
  const low = Math.min(...effect.classes.flatMap((row) => [row.before, row.after]), 1);
  return [
    effect.notes.length ? el("div", { class: "warnings", role: "note" }, effect.notes.map((note) => el("p", null, note))) : null,
    el("dl", { class: "numbers" },
      el("div", null, el("dt", null, "Before"), el("dd", null, percent(overall.before)), el("dd", { class: "note" }, isMultiLabel() ? `of the decisions on ${count(overall.n_samples)} ${things()} right` : `of ${count(overall.n_samples)} ${things()} right`)),
      el("div", { class: "chosen" }, el("dt", null, "After"), el("dd", null, percent(overall.after)), el("dd", { class: "note" }, `between ${interval(overall.after_interval)}`)),
      el("div", null, el("dt", null, "Change"), el("dd", null, changed(overall.loss), el("small", null, " points")), el("dd", { class: "note" }, `${changedBetween(overall.interval)} with 95 % confidence`)),
      isMultiLabel() && overall.mean_average_precision && el("div", null, el("dt", null, "Mean average precision"), el("dd", null, overall.mean_average_precision.map(percent).join(" → ")), el("dd", { class: "note" }, "over the classes")),
      el("div", null, el("dt", null, "Lost"), el("dd", null, count(overall.lost)), el("dd", { class: "note" }, "right before, wrong now")),
      el("div", null, el("dt", null, "Won"), el("dd", null, count(overall.won)), el("dd", { class: "note" }, "wrong before, right now"))),
    el("section", null, heading(plural(effect.edits.length, "edit", "edits"), effect.n_bounds ? `The head is no linear layer any more: it has ${plural(effect.n_bounds, "bound", "bounds")}, beyond which a feature counts no further.` : null),
      el("ol", { class: "steps" }, effect.edits.map((edit) => el("li", null, el("b", null, edit.described), edit.reason ? el("span", { class: "note" }, " ", el("bdi", null, edit.reason)) : null)))),
    el("section", null, heading("By class", effect.n_changed ? `${plural(effect.n_changed, "class wins or loses", "classes win or lose")} ${isMultiLabel() ? "decisions" : things()}; ${count(effect.n_classes - effect.n_changed)} stay as they were.` : `No class wins or loses ${isMultiLabel() ? "a decision" : aThing()}.`),
      effect.classes.length ? changes(effect.classes, [["Class", (row) => classLink(row.class)]], low) : null),
    effect.groups.map(editGroups),
    [["right_to_wrong", "Right before, wrong now"], ["wrong_to_right", "Wrong before, right now"], ...(isMultiLabel() ? [] : [["wrong_to_wrong", "Wrong before and now, in another way"]])].map(([kind, title]) => flipsSection(effect.flips[kind], title)),
  ];
}

function changes(rows, first, low) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Changes" }, el("table", { class: "plain groups" },
    el("thead", null, el("tr", null, [...first.map(([title]) => title), capital(things()), "", "Before", "After", "Change in points, with 95% interval", "Lost", "Won"].map((text, i) => el("th", { scope: "col", class: i < first.length ? null : "n" }, text)))),
    el("tbody", null, rows.map((row) => el("tr", { class: row.ranked === false ? "few-of" : null },
      first.map(([, cell], i) => el(i ? "td" : "th", i ? null : { scope: "row" }, cell(row))),
      el("td", { class: "n" }, count(row.n_samples)),
      el("td", { class: "n" }, beforeAfter(row, low)),
      el("td", { class: "n" }, percent(row.before)),
      el("td", { class: "n" }, percent(row.after)),
      el("td", { class: "n" }, changed(row.loss), el("span", { class: "note between" }, changedBetween(row.interval))),
      el("td", { class: "n" }, count(row.lost)),
      el("td", { class: "n" }, count(row.won)))))));
}

function beforeAfter(row, low) {
  const at = (value) => 100 * (value - low) / ((1 - low) || 1);
  const [left, right] = [Math.min(row.before, row.after), Math.max(row.before, row.after)].map(at);
  return el("span", { class: "track", "aria-hidden": "true" },
    el("i", { class: "rod", style: { left: `${left}%`, width: `${right - left}%` } }),
    el("i", { class: "end dense", style: { left: `${at(row.before)}%` } }), el("i", { class: "end sparse", style: { left: `${at(row.after)}%` } }));
}

function editGroups(part) {
  const low = Math.min(...part.groups.flatMap((row) => [row.before, row.after]), 1);
  const moved = part.groups.filter((row) => row.lost || row.won);
  const both = (title, key, note) => (known(part.before[key]) ? el("div", null, el("dt", null, title), el("dd", null, percent(part.after[key])), el("dd", { class: "note" }, `${percent(part.before[key])} before; ${note}`)) : null);
  const [was, is] = [part.before.worst, part.after.worst];
  const group = (row) => [classLink(row.class), ", ", el("bdi", null, row.value)];
  return el("section", null,
    heading(["By ", el("bdi", null, part.name)], null),
    el("dl", { class: "numbers" },
      is && el("div", { class: "chosen" }, el("dt", null, "Worst group"), el("dd", null, percent(is.accuracy)), el("dd", { class: "note" }, group(is), `: between ${interval(is.interval)}, ${count(is.n_samples)} ${things()}`),
        was && el("dd", { class: "note" }, `before ${percent(was.accuracy)}: `, group(was))),
      both(`Mean over the ${things()}`, "mean", `as the ${things()} are`),
      both("Mean, groups as in training", "mean_by_training", `each group as often as among the training ${things()}`),
      both("Mean over the groups", "mean_of_groups", "every group counts the same")),
    moved.length ? [
      el("h3", null, `Groups that win or lose ${things()}, worst before first`),
      changes(moved.slice(0, 60), [["Class", (row) => classLink(row.class)], [part.name, (row) => [el("bdi", null, row.value), " ", fewMark(row)]]], low),
      moved.length > 60 ? el("p", { class: "note" }, `and ${count(moved.length - 60)} more`) : null] : el("p", { class: "empty" }, `No group wins or loses ${aThing()}.`));
}

function flipsSection(found, title) {
  if (!found.n_samples) return el("section", null, heading(title, `No ${thing()}.`));
  const left = found.n_samples - found.samples.length;
  const views = found.samples.map((flip) => ({ index: flip.image, map: flip.map, feature: flip.features[0]?.feature, value: flip.features[0]?.value }));
  return el("section", null,
    heading(title, `${isMultiLabel() ? plural(found.n_samples, "decision", "decisions") : plural(found.n_samples, "image", things())}${left > 0 ? `, of which ${count(found.samples.length)} are shown` : ""}. Under each stand the features that changed the call most, by how much each moved the new class above the old one; the heat map is that of the first.`),
    mapKey(),
    flipped(found.samples, views));
}

function flipped(samples, views) {
  const holder = el("div", { class: "cases flips" }, samples.map((flip, place) => el("figure", { class: "case" },
    known(flip.image) ? el("button", { type: "button", class: "bare", title: flip.id, onclick: () => openViewer(views, place) }, picture(flip.image, flip.map, flip.id)) : picture(null, null, flip.id),
    el("figcaption", { class: "said" }, el("bdi", { title: className(flip.label) }, className(flip.label)),
      el("span", { class: "as" }, "called ", classLink(flip.before), " → ", classLink(flip.after)),
      el("span", { class: "moved-by" }, flip.features.map((one) => el("span", null, featureLink(one.feature), ` ${signed(one.change)}`)))))));
  live?.mapLater(holder, views);
  return holder;
}
