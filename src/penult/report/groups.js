// Groups: for whom the network is right, and for whom its sparse head is.

const interval = (ends) => (ends ? `${percent(ends[0])} to ${percent(ends[1])}` : "–");
// A loss as a change: fewer right is negative.
const changed = (loss) => points(known(loss) ? -loss : null);
const changedBetween = (ends) => (ends ? `${points(-ends[1])} to ${points(-ends[0])}` : "–");

// An accuracy with its interval, on an axis from 0 to 100%.
function whisker(value, ends, kind) {
  return el("span", { class: "track whisker", role: "img", "aria-label": `${percent(value)}, between ${interval(ends)}` },
    el("i", { class: "rod", style: { left: `${100 * ends[0]}%`, width: `${100 * (ends[1] - ends[0])}%` } }),
    el("i", { class: `end ${kind}`, style: { left: `${100 * value}%` } }));
}

const fewMark = (row) => (row.ranked ? null : el("span", { class: "mark", title: `so few ${things()} tell little; such a group is never called the worst` }, `few ${things()}`));

function groupColumns(first, sparse) {
  return [
    { title: "No.", value: (r) => r.place, cell: (r) => count(r.place + 1), kind: "n", hint: `worst first; groups of few ${things()} last` },
    ...first,
    { title: capital(things()), value: (r) => r.n_samples, cell: (r) => count(r.n_samples), kind: "n", down: true },
    { title: "Network", value: (r) => r.dense, kind: "n wide", hint: `${things()} that the network (dense head) gets right, and the interval in which that lies for all such ${things()}, with 95 % confidence`,
      cell: (r) => [whisker(r.dense, r.dense_interval, "dense"), el("span", { class: "aligned" }, percent(r.dense))] },
    { title: "95% interval", cell: (r) => interval(r.dense_interval), kind: "n" },
    sparse && { title: "Sparse head", value: (r) => r.sparse, cell: (r) => percent(r.sparse), kind: "n" },
    sparse && { title: "Change in points", value: (r) => -r.loss, kind: "n", hint: "sparse head less network, and its interval with 95 % confidence",
      cell: (r) => [changed(r.loss), el("span", { class: "note between" }, changedBetween(r.interval))] },
    { title: "", cell: fewMark, kind: "" },
  ].filter(Boolean);
}

function groupsView() {
  const found = bundle("data-groups");
  if (!found?.length) return missing("No groups", "The run has no groups: give them with penult groups RUN FILE.");
  return {
    title: "Groups",
    content: [
      el("div", { class: "heading" }, el("h1", { tabindex: "-1" }, "Groups"),
        el("p", null, `A group is the ${things()} of one class that share a property. The accuracy of all ${things()} together can hide that a small group is mostly wrong.`)),
      found.map((part, at) => attributeSection(part, at)),
    ],
  };
}

function attributeSection(part, at) {
  const sparse = hasSparse() && Boolean(part.sparse);
  const who = { title: "Class", value: (r) => className(r.class).toLowerCase(), cell: (r) => classLink(r.class), kind: "who" };
  const value = { title: part.name, value: (r) => r.value, cell: (r) => el("bdi", { title: r.value }, r.value), kind: "who" };
  const matches = (row, query) => !query || className(row.class).toLowerCase().includes(query) || row.value.toLowerCase().includes(query);
  return el("section", null,
    el("h2", null, el("bdi", null, part.name)),
    part.n_without ? el("p", { class: "note" }, `${plural(part.n_without, `${thing()} has`, `${things()} have`)} no ${part.name} and ${part.n_without === 1 ? "is" : "are"} left out here.`) : null,
    part.hidden.length ? el("div", { class: "warnings", role: "note" }, part.hidden.map((row) => el("p", null,
      "The sparse head hides a loss: ", classLink(row.class), ", ", el("bdi", null, row.value), `: ${percent(row.dense)} right in the network, ${percent(row.sparse)} in the sparse head (${changedBetween(row.interval)} points with 95 % confidence, ${count(row.n_samples)} ${things()}), while over all ${things()} it changes by ${changed(part.overall_loss)} points.`))) : null,
    el("dl", { class: "numbers" }, meansOf(part, sparse)),
    part.values.length > 1 ? [
      el("h3", null, `All ${things()} with the same `, el("bdi", null, part.name)),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `By ${part.name}` }, plainGroups(part, sparse))] : null,
    el("h3", null, "Each class by ", el("bdi", null, part.name)),
    table(`groups-${at}`, groupColumns([who, value], sparse), part.groups.map((row, place) => ({ ...row, place })), matches, "Filter by class or value"));
}

function meansOf(part, sparse) {
  const both = (key) => [el("dd", null, percent(part.dense[key])), sparse && el("dd", { class: "note" }, `sparse head ${percent(part.sparse[key])}`)];
  const { worst } = part.dense;
  return [
    el("div", { class: "chosen" }, el("dt", null, "Worst group"), el("dd", null, worst ? percent(worst.accuracy) : "–"),
      el("dd", { class: "note" }, worst ? [classLink(worst.class), ", ", el("bdi", null, worst.value), `: between ${interval(worst.interval)}, ${count(worst.n_samples)} ${things()}`] : `every group has fewer than ${part.fewest} ${things()}`),
      sparse && part.sparse.worst && el("dd", { class: "note" }, "sparse head: ", classLink(part.sparse.worst.class), ", ", el("bdi", null, part.sparse.worst.value), ` ${percent(part.sparse.worst.accuracy)}`)),
    el("div", null, el("dt", null, `Mean over the ${things()}`), both("mean"), el("dd", { class: "note" }, `as the ${things()} are`)),
    known(part.dense.mean_by_training) ? el("div", null, el("dt", null, "Mean, groups as in training"), both("mean_by_training"), el("dd", { class: "note" }, `each group as often as among the training ${things()}`)) : null,
    el("div", null, el("dt", null, "Mean over the groups"), both("mean_of_groups"), el("dd", { class: "note" }, "every group counts the same")),
  ];
}

function plainGroups(part, sparse) {
  return el("table", { class: "plain groups" },
    el("thead", null, el("tr", null, [part.name, capital(things()), "Network", "95% interval", sparse && "Sparse head", sparse && "Change in points"].filter(Boolean).map((text, i) => el("th", { scope: "col", class: i ? "n" : null }, text)))),
    el("tbody", null, part.values.map((row) => el("tr", null,
      el("th", { scope: "row" }, el("bdi", null, row.value)),
      el("td", { class: "n" }, count(row.n_samples)),
      el("td", { class: "n" }, percent(row.dense)),
      el("td", { class: "n soft" }, interval(row.dense_interval)),
      sparse && el("td", { class: "n" }, percent(row.sparse)),
      sparse && el("td", { class: "n" }, changed(row.loss), el("span", { class: "note between" }, changedBetween(row.interval)))))));
}
