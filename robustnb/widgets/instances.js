// jax-js 0.1.25 makes a new WebAssembly.Instance of a kernel each time that it runs it, though an instance keeps nothing between two
// calls; collecting them costs more than the kernels' own work. Here a module is instantiated once for each memory.
// @ts-check

const Native = WebAssembly.Instance;
/** @type {WeakMap<WebAssembly.Module, {memory: unknown, instance: WebAssembly.Instance}>} */
const made = new WeakMap();

WebAssembly.Instance = /** @type {any} */ (new Proxy(Native, {
  construct(_, [module, imports]) {
    const memory = imports?.env?.memory;
    const known = made.get(module);
    if (known && memory && known.memory === memory) return known.instance;
    const instance = new Native(module, imports);
    made.set(module, { memory, instance });
    return instance;
  },
}));
