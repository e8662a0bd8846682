// quern metric: BLEU, ROUGE-L, WRatio and pass@k of files, as the evaluation computes them.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/framework/command.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "evaluate/metrics/bleu.h"
#include "evaluate/metrics/pass_at_k.h"
#include "evaluate/metrics/rouge.h"
#include "evaluate/metrics/wratio.h"
#include "evaluate/python_text.h"

namespace quern::cli {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 30;

// The lines of a file, split at LF only; an LF at its end begins no further one.
std::vector<std::string> lines_of(const std::string& path) {
  const std::string text = read_file(path, kMaxBytes);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

// The lines of a JSONL file, each a JSON value.
std::vector<Json> values_of(const std::string& path) {
  std::vector<Json> values;
  int64_t number = 0;
  for (const std::string& line : lines_of(path)) {
    ++number;
    if (python::strip(line).empty()) continue;
    values.push_back(Json::parse(line, fmt::format("{}: line {}", path, number)));
  }
  return values;
}

bool is_jsonl(const std::string& path) { return path.ends_with(".jsonl"); }

std::vector<std::string> segments_of(const std::string& path) {
  if (!is_jsonl(path)) return lines_of(path);
  std::vector<std::string> segments;
  for (const Json& value : values_of(path)) segments.push_back(value.string());
  return segments;
}

// For ROUGE-L a line of JSONL may be a list of tokens: they are joined by a space.
std::vector<std::string> token_texts_of(const std::string& path) {
  if (!is_jsonl(path)) return lines_of(path);
  std::vector<std::string> texts;
  for (const Json& value : values_of(path)) {
    if (value.is_string()) {
      texts.push_back(value.string());
      continue;
    }
    std::string text;
    for (const Json& token : value.items()) {
      if (!text.empty()) text += ' ';
      text += token.string();
    }
    texts.push_back(std::move(text));
  }
  return texts;
}

struct Pair {
  std::string hypothesis, reference;
  std::string tokenize = "13a";
  bool json = false;
};

void check_same_number(const Pair& args, size_t hypotheses, size_t references) {
  if (hypotheses == references) return;
  throw_bad_input(fmt::format("{} has {} segments, {} has {}", args.hypothesis, hypotheses,
                              args.reference, references),
                  "they are compared line by line; lines end at LF only");
}

void bleu(const Pair& args) {
  const auto tokenizer = bleu_tokenizer_from_name(args.tokenize);
  const auto hypotheses = segments_of(args.hypothesis), references = segments_of(args.reference);
  check_same_number(args, hypotheses.size(), references.size());
  const BleuScore score = corpus_bleu(hypotheses, references, *tokenizer);
  const BleuCounts& counts = score.counts;
  if (args.json) {
    print(dump(nlohmann::ordered_json{{"bleu", score.bleu},
                                      {"precisions", score.precisions},
                                      {"bp", score.brevity_penalty},
                                      {"sys_len", counts.hypothesis_tokens},
                                      {"ref_len", counts.reference_tokens},
                                      {"counts", counts.matches},
                                      {"totals", counts.totals},
                                      {"segments", hypotheses.size()},
                                      {"tokenize", args.tokenize}}) +
          "\n");
    return;
  }
  const auto& p = score.precisions;
  print(fmt::format("BLEU {:.2f}  {:.1f}/{:.1f}/{:.1f}/{:.1f}  (BP {:.3f}, {} tokens for {}, {})\n",
                    score.bleu, p[0], p[1], p[2], p[3], score.brevity_penalty,
                    counts.hypothesis_tokens, counts.reference_tokens, args.tokenize));
}

// Scores of pairs of lines: each, or their mean.
void print_scores(const Pair& args, const nlohmann::ordered_json& scores, const char* mean_name,
                  double mean) {
  if (args.json) {
    print(dump(nlohmann::ordered_json{{"scores", scores}, {mean_name, mean}}) + "\n");
    return;
  }
  for (const auto& score : scores) print(fmt::format("{}\n", score.get<double>()));
}

void rouge(const Pair& args) {
  const auto hypotheses = token_texts_of(args.hypothesis);
  const auto references = token_texts_of(args.reference);
  check_same_number(args, hypotheses.size(), references.size());
  nlohmann::ordered_json scores = nlohmann::ordered_json::array();
  double sum = 0;
  for (size_t i = 0; i < hypotheses.size(); ++i) {
    const double f1 = rouge_l(hypotheses[i], references[i]).f1;
    scores.push_back(f1);
    sum += f1;
  }
  print_scores(args, scores, "rouge_l",
               scores.empty() ? 0 : sum / static_cast<double>(scores.size()));
}

void fuzzy(const Pair& args) {
  const auto a = segments_of(args.hypothesis), b = segments_of(args.reference);
  check_same_number(args, a.size(), b.size());
  // Partial likeness slides the shorter text over the longer: time grows with the cube.
  constexpr size_t kMaxShorter = 20'000;
  nlohmann::ordered_json scores = nlohmann::ordered_json::array();
  nlohmann::ordered_json raw = nlohmann::ordered_json::array();
  for (size_t i = 0; i < a.size(); ++i) {
    const std::u32string first = fuzzy_text(a[i]), second = fuzzy_text(b[i]);
    if (std::min(first.size(), second.size()) > kMaxShorter) {
      throw_bad_input(fmt::format("{}: line {} and its counterpart have more than {} characters",
                                  args.hypothesis, i + 1, kMaxShorter),
                      "WRatio is for short texts");
    }
    raw.push_back(wratio(first, second));
    scores.push_back(fuzzy_score(a[i], b[i]));
  }
  if (args.json) {
    print(dump(nlohmann::ordered_json{{"scores", scores}, {"raw", raw}}) + "\n");
    return;
  }
  for (const auto& score : scores) print(fmt::format("{}\n", score.get<int>()));
}

struct PassAtK {
  std::string counts;
  std::vector<int64_t> k = {1};
  bool json = false;
};

void pass_at(const PassAtK& args) {
  std::vector<SampleCounts> tasks;
  for (const Json& line : values_of(args.counts)) {
    const int64_t n = line.at("n").integer(1, int64_t{1} << 30);
    tasks.push_back({n, line.at("c").integer(0, n)});
  }
  if (tasks.empty())
    throw_bad_input(args.counts + ": holds no counts", "a line is {\"n\":10,\"c\":3}");
  nlohmann::ordered_json out;
  for (const int64_t k : args.k) {
    for (size_t i = 0; i < tasks.size(); ++i) {
      if (tasks[i].samples >= k) continue;
      throw_bad_input(fmt::format("{}: task {} has {} samples, too few for pass@{}", args.counts,
                                  i + 1, tasks[i].samples, k),
                      "give every task at least as many as the largest k");
    }
    out[fmt::format("pass@{}", k)] = pass_at_k(tasks, k);
  }
  if (args.json) {
    print(dump(out) + "\n");
    return;
  }
  for (const auto& [name, value] : out.items()) {
    print(fmt::format("{} {:.2f} %\n", name, 100 * value.get<double>()));
  }
}

void add_pair(CLI::App& parent, const std::string& name, const std::string& description,
              const std::vector<Example>& examples, void (*body)(const Pair&)) {
  Command command(parent, name, description, examples);
  auto args = std::make_shared<Pair>();
  command
      .positional("hypothesis", args->hypothesis,
                  "Texts, one per line, or .jsonl with one JSON value per line")
      .required();
  command.positional("reference", args->reference, "As many texts to compare with").required();
  if (body == bleu) {
    command.option("--tokenize", args->tokenize, "mteval-v13a, or Chinese by character")
        .one_of({"13a", "zh"});
  }
  command.flag("--json", args->json, "Print one JSON object");
  command.on_run([args, body] { body(*args); });
}

}  // namespace

void add_metric(CLI::App& root) {
  Command metric(root, "metric", "Score texts against references: BLEU, ROUGE-L, WRatio, pass@k");
  add_pair(metric.app(), "bleu", "Corpus BLEU, equal to sacrebleu's",
           {{"metric bleu hypotheses.txt references.txt --tokenize zh", "of a translation"}}, bleu);
  add_pair(metric.app(), "rouge-l", "ROUGE-L F1 of each line",
           {{"metric rouge-l hypotheses.txt references.txt --json", "and their mean"}}, rouge);
  add_pair(metric.app(), "wratio", "How alike each two lines are, as thefuzz's WRatio",
           {{"metric wratio hypotheses.txt references.txt", "0 to 100 for each line"}}, fuzzy);
  Command command(metric.app(), "pass-at-k",
                  "pass@k from counts of samples and of those that passed",
                  {{"metric pass-at-k counts.jsonl --k 1,10", "a line is {\"n\":20,\"c\":3}"}});
  auto args = std::make_shared<PassAtK>();
  command.positional("counts", args->counts, "JSONL: a task's samples n and passes c").required();
  command.option("--k", args->k, "Programs drawn", "1").separated_by(',').range(1, 1 << 30);
  command.flag("--json", args->json, "Print one JSON object");
  command.on_run([args] { pass_at(*args); });
}

}  // namespace quern::cli
