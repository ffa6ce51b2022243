const ENGLISH = {
  stop: "Stop after this chunk",
  stopTooltip: "Ends the video after the chunk that is being made; what is made so far is the result.",
  stopping: "Stopping after this chunk",
  notRunning: "Nothing to stop: this node is not running",
};
const CHINESE = {
  stop: "完成当前块后停止",
  stopTooltip: "当前块生成完后结束视频；已生成的部分就是结果。",
  stopping: "将在当前块完成后停止",
  notRunning: "没有可停止的任务：该节点未在运行",
};

/** The words of what the locale files do not reach: widgets that are no inputs, and messages. */
export function words(locale) {
  return locale?.startsWith("zh") ? CHINESE : ENGLISH;
}
