// Runs before the page is painted, so that it never flashes in the wrong colours.
try {
  const settings = JSON.parse(localStorage.getItem("tercel.settings") ?? "{}");
  if (settings.theme === "dark" || settings.theme === "light") {
    document.documentElement.dataset.theme = settings.theme;
  }
} catch {
  // Without a storage the system's colours hold.
}
