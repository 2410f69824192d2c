// The sheet of settings.
import { byId, h, setAttribute, setText } from "./dom.js";
import { icon } from "./icons.js";
import { NUMBERS, problem } from "./settings.js";

const LOOKS = { auto: ["auto", "as the system"], light: ["sun", "light"], dark: ["moon", "dark"] };

/** Shows the settings and takes changes as they are typed. */
export class Sheet {
  #dialog = byId("settings");
  #settings;
  #actions;

  constructor(settings, actions) {
    this.#settings = settings;
    this.#actions = actions;
    byId("settings-open").addEventListener("click", () => this.open());
    byId("settings-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    this.#dialog.addEventListener("close", () => this.#takeKey());
    this.#connectReplies();
    this.#connectLook();
    byId("key").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      // The key would go on to press what has the focus next.
      event.preventDefault();
      this.#dialog.close();
    });
    byId("export-all").addEventListener("click", actions.exportAll);
    this.#connectDelete();
  }

  /** Opens it, at a field if one is named. */
  open(id) {
    byId("system").value = this.#settings.values.system;
    byId("key").value = this.#settings.key;
    byId("keep-key").checked = this.#settings.isKeyKept;
    if (!this.#dialog.open) this.#dialog.showModal();
    if (id) byId(id).focus();
  }

  #connectReplies() {
    byId("system").addEventListener("input", (event) => this.#settings.set("system", event.target.value));
    const fields = NUMBERS.map((number) => this.#number(number));
    byId("numbers").append(...fields.map((field) => field.element));
    byId("reset").addEventListener("click", () => {
      for (const number of NUMBERS) this.#settings.set(number.name, "");
      this.#settings.set("system", "");
      byId("system").value = "";
      for (const field of fields) field.show();
    });
  }

  #number(number) {
    const hintId = `${number.name}-hint`;
    const input = h("input", {
      id: number.name,
      type: "text",
      inputmode: number.isWhole ? "numeric" : "decimal",
      autocomplete: "off",
      placeholder: "Default",
      "aria-describedby": hintId,
    });
    const hint = h("p", { id: hintId, class: "fine" });
    const check = () => {
      const wrong = problem(number, input.value);
      setText(hint, wrong || number.hint);
      hint.classList.toggle("wrong", wrong !== "");
      setAttribute(input, "aria-invalid", wrong !== "" && "true");
    };
    const show = () => {
      input.value = this.#settings.values[number.name] ?? "";
      check();
    };
    input.addEventListener("input", () => {
      this.#settings.set(number.name, input.value.trim());
      check();
    });
    show();
    return { element: h("div", {}, h("label", { class: "field", for: number.name }, number.label), input, hint), show };
  }

  #connectLook() {
    const show = () => {
      const { theme } = this.#settings.values;
      if (theme === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = theme;
      const button = byId("theme");
      const [drawing, name] = LOOKS[theme] ?? LOOKS.auto;
      button.replaceChildren(icon(drawing));
      button.title = `Colours: ${name}`;
      setAttribute(button, "aria-label", button.title);
    };
    byId("theme").addEventListener("click", () => {
      const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
      const order = isDark ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
      this.#settings.set("theme", order[(order.indexOf(this.#settings.values.theme) + 1) % 3]);
      show();
    });
    show();
  }

  #takeKey() {
    const key = byId("key").value.trim();
    const isKept = byId("keep-key").checked;
    if (key === this.#settings.key && isKept === this.#settings.isKeyKept) return;
    this.#settings.setKey(key, isKept);
    this.#actions.keyChanged();
  }

  /** Asks once more: what is deleted here cannot be had back. */
  #connectDelete() {
    const button = byId("delete-all");
    const ask = (isAsked) => {
      button.classList.toggle("asked", isAsked);
      button.lastChild.textContent = isAsked ? "Really delete all?" : "Delete all";
    };
    button.addEventListener("click", () => {
      const isAsked = button.classList.contains("asked");
      ask(!isAsked);
      if (isAsked) this.#actions.removeAll();
    });
    button.addEventListener("blur", () => ask(false));
  }
}
