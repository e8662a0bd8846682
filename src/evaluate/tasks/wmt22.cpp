// WMT22 general translation between Chinese and English, 5-shot: the first pairs of WMT21's set are
// shown, reference A judges. The release has no script for it; form and shots are ours and printed.
#include <fmt/format.h>

#include "core/error.h"
#include "core/python_text.h"
#include "evaluate/metrics/bleu.h"
#include "evaluate/tasks/all.h"
#include "evaluate/tasks/translation.h"

namespace quern {
namespace {

constexpr size_t kShots = 5;
constexpr const char* kPublished = "github.com/wmt-conference/wmt22-news-systems";

struct Direction {
  std::string pair, source, target;  // "zh-en", "zh", "en"
  BleuTokenizer tokenizer;

  // The prompt ends where the translation begins.
  std::string asked(const std::string& text) const {
    return source == "zh" ? "中文：" + text + "\nEnglish:" : "English: " + text + "\n中文：";
  }
  std::string shown(const std::string& text, const std::string& translation) const {
    return asked(text) + (source == "zh" ? " " : "") + translation + "\n\n";
  }
};

struct Pairs {
  std::vector<std::string> sources, references;
};

Pairs read_pairs(const DataFolder& data, const Direction& direction, const std::string& stem,
                 const std::string& published) {
  const std::string base = stem + "." + direction.pair;
  const fs::path sources = data.need(base + ".src." + direction.source, published);
  const fs::path references = data.need(base + ".ref.A." + direction.target, published);
  Pairs pairs{read_lines(sources), read_lines(references)};
  if (pairs.sources.size() != pairs.references.size()) {
    throw_bad_input(fmt::format("{} has {} lines, {} has {}", sources.string(),
                                pairs.sources.size(), references.string(),
                                pairs.references.size()));
  }
  return pairs;
}

std::vector<Item> load(const DataFolder& data, const Direction& direction) {
  const Pairs shown = read_pairs(data, direction, "wmt21/newstest2021",
                                 "github.com/wmt-conference/wmt21-news-systems");
  std::string shots;
  for (size_t i = 0; i < std::min(kShots, shown.sources.size()); ++i) {
    shots += direction.shown(shown.sources[i], shown.references[i]);
  }
  const Pairs pairs = read_pairs(data, direction, "wmt22/generaltest2022", kPublished);
  std::vector<Item> items;
  for (size_t i = 0; i < pairs.sources.size(); ++i) {
    Item item{.task = "wmt22-" + direction.pair, .split = "test"};
    item.index = static_cast<int64_t>(i);
    item.id = fmt::format("{}/{}", item.task, i);
    item.prompt = shots + direction.asked(pairs.sources[i]);
    item.target = pairs.references[i];
    item.stop = {"\n"};
    item.max_new_tokens = 512;
    items.push_back(std::move(item));
  }
  return items;
}

Task wmt22(Direction direction) {
  Task task{.name = "wmt22-" + direction.pair};
  task.title = "WMT22 " + direction.pair + ", 5-shot BLEU";
  task.kind = Task::Kind::Generate;
  task.groups = {"translation"};
  task.split = "test";
  task.shots = kShots;
  task.metric = "bleu";
  task.published = kPublished;
  task.load = [direction](const DataFolder& data, const ItemOptions&) {
    return load(data, direction);
  };
  task.judge = [direction](const Item& item, const Response& response, const JudgeContext&) {
    ItemVerdict verdict;
    const std::string_view text = python::before(response.text, "<|endoftext|>");
    verdict.prediction = python::strip(python::before(text, "\n"));
    verdict.prediction_fixed = verdict.prediction;
    verdict.details =
        bleu_details(bleu_counts(*verdict.prediction, *item.target, direction.tokenizer));
    return verdict;
  };
  task.summarize = [](const DataFolder&, std::span<const Judged> judged) {
    return bleu_summary(judged);
  };
  return task;
}

}  // namespace

Task wmt22_zh_en_task() { return wmt22({"zh-en", "zh", "en", BleuTokenizer::Mteval13a}); }
Task wmt22_en_zh_task() { return wmt22({"en-zh", "en", "zh", BleuTokenizer::Chinese}); }

}  // namespace quern
