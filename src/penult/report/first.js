// Before anything is drawn: the theme, and which view is to be seen first.
{
  const root = document.documentElement;
  root.classList.add("scripted");
  try {
    const theme = localStorage.getItem("penult-theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch { /* a frame may forbid storage */ }
  const route = location.hash.slice(1).split("!%7B")[0] || root.dataset.start;
  root.dataset.view = ["summary", "guide"].includes(route) ? route : "other";
}
