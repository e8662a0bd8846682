// quern data train-classifier, train-language: linear classifiers of texts for the pipeline's stages.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/commands/data_stages.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/python_text.h"
#include "core/utf8.h"
#include "data/classify/labelled_records.h"
#include "data/classify/ngram_model.h"
#include "data/pipeline/shards.h"

namespace quern::cli {
namespace {

using nlohmann::ordered_json;

// Reports L-BFGS's passes, and ends them on Ctrl-C.
std::function<void(int, double)> reporting(Progress& progress) {
  return [&progress](int iteration, double) {
    check_interrupted();
    progress.update(static_cast<uint64_t>(iteration));
  };
}

ordered_json number_or_null(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json();
}

// ---- train-classifier

struct ClassifierArguments {
  std::vector<std::string> train, test;
  std::string out, text_field = "text", label_field = "label", positive, kind = "quality";
  double c = 10;
  bool json = false, force = false;
};

std::vector<LabelledText> read_binary(const std::vector<std::string>& words,
                                      const ClassifierArguments& args) {
  std::vector<LabelledText> texts;
  for_each_labelled(expand_inputs(words), args.text_field, args.label_field,
                    [&](std::string text, const std::string& label) {
                      texts.push_back({std::move(text), binary_label(label, args.positive)});
                    });
  return texts;
}

// Scores of texts, and their labels.
struct Scored {
  std::vector<double> scores;
  std::vector<int> labels;
};
Scored score(const LinearModel& model, const std::vector<LabelledText>& texts, ThreadPool& pool) {
  Scored out{std::vector<double>(texts.size()), {}};
  for (const LabelledText& text : texts) out.labels.push_back(text.label);
  pool.parallel_for(static_cast<int64_t>(texts.size()), 64, [&](int64_t first, int64_t last, int) {
    LinearScorer scorer(model);
    for (int64_t i = first; i < last; ++i) {
      out.scores[size_t(i)] = scorer.score(texts[size_t(i)].text);
    }
  });
  return out;
}

void train_classifier(const ClassifierArguments& args) {
  claim_output(args.out, args.force);
  const std::vector<LabelledText> texts = read_binary(args.train, args);
  const std::vector<LabelledText> tests = read_binary(args.test, args);
  ThreadPool pool(globals().threads);
  LinearTraining options;
  options.c = args.c;
  const std::vector<std::string> labels = {"0", "1"};
  const InterruptScope scope;
  // A tenth that the first training doesn't see chooses the threshold.
  std::vector<LabelledText> most, tenth;
  size_t seen[2] = {};
  for (const LabelledText& text : texts) {
    (seen[text.label]++ % 10 == 9 ? tenth : most).push_back(text);
  }
  LinearModel model;
  Scored held_out;
  {
    Progress progress("threshold", static_cast<uint64_t>(options.iterations), "passes");
    options.on_iteration = reporting(progress);
    held_out = score(train_linear(most, labels, options, pool), tenth, pool);
  }
  {
    Progress progress("training", static_cast<uint64_t>(options.iterations), "passes");
    options.on_iteration = reporting(progress);
    model = train_linear(texts, labels, options, pool);
  }
  model.kind = args.kind;
  const bool both = seen[0] >= 10 && seen[1] >= 10;
  model.threshold = both ? best_threshold(held_out.scores, held_out.labels) : 0.5;
  const Scored judged = tests.empty() ? held_out : score(model, tests, pool);
  const Quality quality = quality_at(judged.scores, judged.labels, model.threshold);
  const double auc = area_under_curve(judged.scores, judged.labels);
  model.save(args.out);
  if (args.json) {
    print(dump(ordered_json{{"auc", number_or_null(auc)},
                            {"precision", quality.precision},
                            {"recall", quality.recall},
                            {"f1", quality.f1},
                            {"threshold", model.threshold},
                            {"train", texts.size()},
                            {"test", judged.scores.size()},
                            {"held_out", tests.empty()},
                            {"features", model.feature_count()},
                            {"bytes", fs::file_size(args.out)}}) +
          "\n");
    return;
  }
  print(fmt::format("{}: {} texts, {} n-grams, {}\n", args.out, texts.size(), model.feature_count(),
                    human_bytes(fs::file_size(args.out))));
  if (judged.scores.empty()) {
    print("too few texts to hold a tenth out: the threshold is 0.5\n");
    return;
  }
  print(fmt::format("{} of {}: AUC {}, at {:.3f} precision {:.3f}, recall {:.3f}, F1 {:.3f}\n",
                    judged.scores.size(), tests.empty() ? "a tenth held out" : "the test",
                    std::isfinite(auc) ? fmt::format("{:.4f}", auc) : "-", model.threshold,
                    quality.precision, quality.recall, quality.f1));
}

// ---- train-language

struct LanguageArguments {
  std::vector<std::string> train, test, exclude;
  std::string out, label_field = "lang";
  int bits = 15, passes = 5;
  bool json = false, force = false;
};

constexpr size_t kWindow = 500;  // characters of a long text that make up one sample

// Cuts a text into parts of about kWindow characters, at white space where there is some.
void add_windows(std::string_view text, const std::string& label,
                 const std::function<void(std::string, const std::string&)>& add) {
  while (!text.empty()) {
    size_t at = 0, characters = 0;
    while (at < text.size() && characters < kWindow) {
      at += utf8::decode(text.substr(at)).length;
      ++characters;
    }
    if (at < text.size()) {
      const size_t space = text.substr(0, at).find_last_of(" \n\t");
      if (space != text.npos && space > at / 2) at = space + 1;
    }
    const std::string_view part = python::strip(text.substr(0, at));
    if (!part.empty()) add(std::string(part), label);
    text.remove_prefix(at);
  }
}

// Calls `see` with each line of a file that is not blank, without white space at its ends.
void for_each_text_line(const fs::path& file, const std::function<void(std::string_view)>& see) {
  const std::string text = read_file(file, uint64_t{1} << 32);
  for (const std::string_view line : python::split_at(text, "\n")) {
    const std::string_view bare = python::strip(line);
    if (!bare.empty()) see(bare);
  }
}

// Files, and the .txt files of folders in the order of their names.
std::vector<fs::path> text_files(const std::vector<std::string>& words) {
  std::vector<fs::path> files;
  for (const std::string& word : words) {
    if (!fs::is_directory(word)) {
      files.emplace_back(word);
      continue;
    }
    const size_t begin = files.size();
    for (const auto& entry : fs::directory_iterator(word)) {
      if (entry.path().extension() == ".txt") files.push_back(entry.path());
    }
    if (files.size() == begin) throw_bad_input(word + ": holds no .txt file");
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(begin), files.end());
  }
  return files;
}

// NAME.txt: a sample a line, labelled NAME; other files: records.
void for_each_sample(const std::vector<std::string>& words, const LanguageArguments& args,
                     const std::function<void(std::string, const std::string&)>& see) {
  std::vector<fs::path> records;
  for (const fs::path& file : text_files(words)) {
    if (file.extension() != ".txt") {
      for (const fs::path& one : expand_inputs({file.string()})) records.push_back(one);
      continue;
    }
    for_each_text_line(
        file, [&](std::string_view line) { see(std::string(line), file.stem().string()); });
  }
  for_each_labelled(
      records, "text", args.label_field,
      [&](const std::string& text, const std::string& label) { add_windows(text, label, see); });
}

void train_language(const LanguageArguments& args) {
  claim_output(args.out, args.force);
  std::set<std::string> excluded;
  for (const fs::path& file : text_files(args.exclude)) {
    for_each_text_line(file, [&](std::string_view line) { excluded.emplace(line); });
  }
  std::vector<std::string> labels;
  std::vector<std::pair<std::string, std::string>> samples, tests;
  for_each_sample(args.train, args, [&](std::string text, const std::string& label) {
    if (!excluded.contains(text)) samples.emplace_back(std::move(text), label);
  });
  for_each_sample(args.test, args, [&](std::string text, const std::string& label) {
    tests.emplace_back(std::move(text), label);
  });
  std::set<std::string> names;
  for (const auto& [text, label] : samples) names.insert(label);
  if (names.size() < 2) {
    throw_bad_input(fmt::format("the texts have {} label, a classifier needs two", names.size()),
                    "give a file for each language, as de.txt en.txt");
  }
  labels.assign(names.begin(), names.end());
  const auto index = [&](const std::string& label) {
    return static_cast<int>(std::ranges::lower_bound(labels, label) - labels.begin());
  };
  std::vector<LabelledText> texts;
  for (auto& [text, label] : samples) texts.push_back({std::move(text), index(label)});
  ThreadPool pool(globals().threads);
  LinearTraining options;
  options.features = {.char_least = 1,
                      .char_most = 4,
                      .word_most = 0,
                      .bucket_bits = args.bits,
                      .values = FeatureOptions::Values::Counts};
  options.passes = args.passes;
  options.precision = LinearModel::Precision::Int8;
  const InterruptScope scope;
  Progress progress("training", static_cast<uint64_t>(options.passes), "passes");
  options.on_iteration = reporting(progress);
  LinearModel model = train_linear(texts, labels, options, pool);
  progress.finish();
  model.kind = "language";
  model.save(args.out);

  std::vector<int> found(tests.size());
  pool.parallel_for(static_cast<int64_t>(tests.size()), 64, [&](int64_t first, int64_t last, int) {
    LinearScorer scorer(model);
    for (int64_t i = first; i < last; ++i) {
      const auto p = scorer.probabilities(tests[size_t(i)].first);
      found[size_t(i)] = static_cast<int>(std::ranges::max_element(p) - p.begin());
    }
  });
  std::map<std::string, std::map<std::string, int64_t>> confusion;  // by right, by given label
  int64_t right = 0;
  for (size_t i = 0; i < tests.size(); ++i) {
    const std::string& given = labels[size_t(found[i])];
    ++confusion[tests[i].second][given];
    right += given == tests[i].second;
  }
  const double accuracy =
      tests.empty() ? NAN : static_cast<double>(right) / static_cast<double>(tests.size());
  if (args.json) {
    ordered_json out = {{"labels", labels},
                        {"train", texts.size()},
                        {"test", tests.size()},
                        {"accuracy", number_or_null(accuracy)},
                        {"bytes", fs::file_size(args.out)},
                        {"confusion", ordered_json::object()}};
    for (const auto& [label, row] : confusion) out["confusion"][label] = row;
    print(dump(out) + "\n");
    return;
  }
  print(fmt::format("{}: {} labels, {} samples, {}\n", args.out, labels.size(), texts.size(),
                    human_bytes(fs::file_size(args.out))));
  if (tests.empty()) return;
  print(
      fmt::format("{} of {} test samples right, {:.2f} %\n", right, tests.size(), 100 * accuracy));
  for (const auto& [label, row] : confusion) {
    int64_t all = 0;
    std::string wrong;
    for (const auto& [given, count] : row) {
      all += count;
      if (given != label) wrong += fmt::format("{}{} {}", wrong.empty() ? "" : ", ", given, count);
    }
    const int64_t good = row.contains(label) ? row.at(label) : 0;
    print(fmt::format("  {:<12} {:>6.2f} % of {:<7} {}\n", label,
                      100 * static_cast<double>(good) / static_cast<double>(all), all, wrong));
  }
}

// ---- train-ngram

struct NGramArguments {
  std::vector<std::string> train;
  std::string out, text_field = "text";
  int order = 5;
  bool json = false, force = false;
};

void train_ngram(const NGramArguments& args) {
  claim_output(args.out, args.force);
  std::vector<std::vector<std::string>> sentences;
  const auto add_lines = [&](std::string_view text) {
    for (const std::string_view line : python::split_at(text, "\n")) {
      std::vector<std::string> words = ngram_words(line);
      if (!words.empty()) sentences.push_back(std::move(words));
    }
  };
  const InterruptScope scope;
  std::vector<fs::path> records;
  for (const fs::path& file : text_files(args.train)) {
    if (file.extension() == ".txt") {
      add_lines(read_file(file, uint64_t{1} << 32));
    } else {
      for (const fs::path& one : expand_inputs({file.string()})) records.push_back(one);
    }
    check_interrupted();
  }
  for_each_text(records, args.text_field, [&](std::string_view text) {
    check_interrupted();
    add_lines(text);
  });
  std::vector<int> fallbacks;
  const NGramModel model =
      NGramModel::train(sentences, args.order, [&](int order) { fallbacks.push_back(order); });
  write_file(args.out, model.arpa());
  for (const int order : fallbacks) {
    log::warning(
        fmt::format("too few {}-grams occur one to four times to estimate their discounts: "
                    "0.5, 1 and 1.5 are taken",
                    order));
  }
  std::vector<size_t> sizes;
  for (int i = 1; i <= model.order(); ++i) sizes.push_back(model.size(i));
  if (args.json) {
    print(dump(ordered_json{{"order", model.order()},
                            {"sentences", sentences.size()},
                            {"ngrams", sizes},
                            {"bytes", fs::file_size(args.out)}}) +
          "\n");
    return;
  }
  print(fmt::format("{}: order {}, {} sentences, n-grams {}, {}\n", args.out, model.order(),
                    sentences.size(), fmt::join(sizes, " "), human_bytes(fs::file_size(args.out))));
}

void add_train_ngram(CLI::App& data) {
  auto args = std::make_shared<NGramArguments>();
  Command command(data, "train-ngram", "Train a word n-gram model, for filter's rules ngram",
                  {{"data train-ngram good.txt --order 3 --out good.arpa",
                    "modified Kneser-Ney smoothing; an ARPA file, which KenLM reads too"}});
  command
      .positional("train", args->train,
                  "Text files (a line a sentence), folders of them, or record files")
      .required();
  command.option("--out", args->out, "ARPA file to make").required().file();
  command.option("--order", args->order, "Words of the longest n-grams")
      .range(2, NGramModel::kMostOrder);
  command.option("--text-field", args->text_field, "Field of records that holds the text");
  command.flag("--json", args->json, "Print one JSON object");
  command.flag("--force", args->force, "Replace the file if it exists");
  command.on_run([args] { train_ngram(*args); });
}

}  // namespace

void add_data_train(CLI::App& data) {
  add_train_ngram(data);
  {
    auto args = std::make_shared<ClassifierArguments>();
    Command command(data, "train-classifier",
                    "Train a classifier of texts, for filter's rules quality and toxic",
                    {{"data train-classifier labelled.jsonl --out quality.bin",
                      "logistic regression on n-grams of characters and words"}});
    command.positional("train", args->train, "Record files with texts and labels").required();
    command.option("--out", args->out, "File to make").required().file();
    command.option("--test", args->test, "Record files to judge it by", "a tenth of the others");
    command.option("--text-field", args->text_field, "Field that holds the text");
    command.option("--label-field", args->label_field,
                   "Field that holds the label: 1 and 0, true and false, yes and no");
    command.option("--positive", args->positive, "Label to find; all others are the other", "1");
    command.option("--kind", args->kind, "What the classifier is for").one_of({"quality", "toxic"});
    command.option("--c", args->c, "Weight of the losses against the penalty").range(1e-6, 1e6);
    command.flag("--json", args->json, "Print one JSON object");
    command.flag("--force", args->force, "Replace the file if it exists");
    command.on_run([args] { train_classifier(*args); });
  }
  auto args = std::make_shared<LanguageArguments>();
  Command command(data, "train-language", "Train a classifier of languages, for data language",
                  {{"data train-language de.txt en.txt --out languages.bin",
                    "a line a sample, labelled by the file's name"}});
  command
      .positional("train", args->train,
                  "NAME.txt, a sample a line, folders of them, or record files with the language "
                  "in a field")
      .required();
  command.option("--out", args->out, "File to make").required().file();
  command.option("--test", args->test, "Files or folders of the same kind to judge it by");
  command.option("--exclude", args->exclude,
                 "Text files or folders of them, whose lines are left out of training");
  command.option("--label-field", args->label_field, "Field of records that holds the language");
  command.option("--bits", args->bits, "The n-grams' hashes have so many bits").range(8, 22);
  command.option("--passes", args->passes, "Passes over the texts").range(1, 1000);
  command.flag("--json", args->json, "Print one JSON object");
  command.flag("--force", args->force, "Replace the file if it exists");
  command.on_run([args] { train_language(*args); });
}

}  // namespace quern::cli
