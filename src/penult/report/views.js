// Views: what each address of the report shows, and under which tab.

const VIEWS = {
  classes: classesView,
  class: (argument) => classView(classNumber(argument)),
  features: (argument) => featuresView(argument),
  feature: (argument) => featureView(Number(argument)),
  mistakes: (argument) => {
    const label = classNumber(argument);
    return argument && label === null ? noClass() : mistakesView(label);
  },
  mistake: (argument) => mistakeView(Number(argument)),
  groups: groupsView,
  suspects: suspectsView,
  suspect: (argument) => suspectView(Number(argument)),
  edits: editsView,
  edit: editView,
};

const TABS = { class: "classes", feature: "features", mistake: "mistakes", suspect: "suspects", edit: "edits" };
