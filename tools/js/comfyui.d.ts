/**
 * Types for `tsc`: the parts of ComfyUI's editor that js/ uses, and the keys of the pack's texts.
 *
 * Fields that only some supported editors have are optional.
 */

declare module "*/scripts/app.js" {
  export const app: ComfyApp;
}

declare module "*/scripts/api.js" {
  export const api: ComfyApi;
}

declare const LiteGraph: { createNode(type: string): ComfyNode };

interface Window {
  comfyAPI?: { utils?: { applyTextReplacements?(app: ComfyApp, value: string): string } };
}

interface ComfyApi extends EventTarget {
  clientId?: string;
  apiURL(path: string): string;
  fetchApi(path: string, options?: RequestInit): Promise<Response>;
  queuePrompt(...details: any[]): Promise<any>;
  dispatchCustomEvent(type: string, data?: any): boolean;
  getWorkflowTemplates?(): Promise<Record<string, string[]>>;
}

interface ComfyApp {
  canvas: ComfyCanvas;
  graph: ComfyGraph;
  rootGraph?: ComfyGraph;
  configuringGraph: boolean;
  nodePreviewImages?: Record<string, string[]>;
  extensionManager: {
    setting: { get(id: string): any };
    toast: { add(message: { severity: string; summary: string; detail?: string; life: number }): void };
    dialog: {
      confirm(question: { title: string; message: string }): Promise<boolean | null>;
      prompt(question: { title: string; message: string; defaultValue: string }): Promise<string | null>;
    };
    command: { execute(id: string): Promise<unknown> };
    registerSidebarTab(tab: object): void;
    workflow?: { activeWorkflow: OpenWorkflow | null; openWorkflows: OpenWorkflow[] };
  };
  loadGraphData(...details: any[]): Promise<any>;
  queuePrompt(number: number): Promise<unknown>;
  graphToPrompt(): Promise<{ output: Record<string, any>; workflow: object }>;
  registerExtension(extension: object): void;
}

interface ComfyCanvas {
  canvas?: HTMLCanvasElement;
  graph?: ComfyGraph;
  selected_nodes?: Record<string, ComfyNode>;
  ds: { visible_area?: ArrayLike<number> };
  openSubgraph?(graph: ComfyGraph, holder: ComfyNode): void;
  setGraph?(graph: ComfyGraph): void;
  selectNodes(nodes: ComfyNode[]): void;
  centerOnNode(node: ComfyNode): void;
  processMouseWheel(event: WheelEvent): void;
  emitBeforeChange(): void;
  emitAfterChange(): void;
}

interface OpenWorkflow {
  path: string;
}

interface ComfyGraph {
  id?: string;
  nodes: ComfyNode[];
  extra?: { self_forcing?: Record<string, { rows: string; seconds: number }>; sf_workflow?: string };
  rootGraph: ComfyGraph;
  add(node: ComfyNode): void;
  getNodeById(id: string | number): ComfyNode | null;
  setDirtyCanvas(foreground: boolean, background: boolean): void;
  updateExecutionOrder(): void;
}

interface ComfyWidget {
  name: string;
  value: any;
  options?: { values?: unknown };
  element?: HTMLElement;
  label?: string;
  serialize?: boolean;
  serializeValue?(): unknown;
  onRemove?(): void;
  callback?: (...details: any[]) => unknown;
}

interface ComfyNode {
  id: string | number;
  type: string;
  pos: [number, number];
  size: [number, number];
  /** Undefined until the node is added to a graph. */
  graph: ComfyGraph;
  inputs: { name: string; link?: number | null }[];
  widgets?: ComfyWidget[];
  subgraph?: ComfyGraph;
  constructor: Function & { comfyClass?: string; nodeData?: any };
  setSize(size: [number, number]): void;
  computeSize(): [number, number];
  getInputLink?(slot: number): { origin_id: string | number; origin_slot: number } | null;
  imgs?: unknown[];
  addCustomWidget?(widget: object): ComfyWidget;
  getOutputNodes?(slot: number): ComfyNode[] | null;
  connect(slot: number, target: ComfyNode, targetSlot: number): unknown;
  addDOMWidget(name: string, type: string, element: HTMLElement, options: object): ComfyWidget;
  [method: string]: any;
}

/** The output of a node that an input is wired to. */
interface Origin {
  node: ComfyNode;
  slot: number;
}

/** [x, y, width, height] on the canvas. */
type Box = [number, number, number, number];

type KeysOf<Texts> = { [Group in keyof Texts & string]: `${Group}.${keyof Texts[Group] & string}` }[keyof Texts & string];

/** The key of a text, such as "player.goLive". */
type TextKey = KeysOf<(typeof import("../../locales/en/main.json"))["selfForcing"]>;

/** Gives the text of a key, with values in place of the {names} in it. */
type Translate = (key: TextKey, values?: Record<string, unknown>) => string;
