// Texts that a model predicts: WikiText-2 (Merity et al. 2016) in windows of 2,048 tokens, and long
// documents in windows of growing length, with and without what the memo's release does about them.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "evaluate/python_text.h"
#include "evaluate/tasks/all.h"
#include "evaluate/text_meter.h"
#include "plot/chart.h"

namespace quern {
namespace {

constexpr const char* kWikitextPublished =
    "github.com/pytorch/examples, folder word_language_model/data/wikitext-2";
constexpr const char* kLongPublished = "long texts of your own: {\"id\", \"text\"} a line";
constexpr int64_t kWindow = 2048;
constexpr int64_t kLengths[] = {1024, 2048, 4096, 8192, 16384};  // of the memo's table
constexpr int64_t kLimitPerDocument = 20;

MetricValue value_of(double value, int64_t count) { return {.value = value, .count = count}; }

int64_t words_of(std::string_view text) { return static_cast<int64_t>(python::split(text).size()); }

// Token perplexity as the release's tables have it; bits for a byte and perplexity for a word, which
// compare models of different vocabularies. The windows' first tokens are predicted by nobody, so
// that bytes and words are those of the others, by their share.
Measured measure_wikitext(std::span<const Item> items, TextMeter& meter) {
  const Tokenizer& tokenizer = meter.model().tokenizer();
  std::vector<TokenId> ids = tokenizer.encode(items.front().prompt);
  const int64_t window = std::min(kWindow, meter.model().engine_options().context);
  if (meter.options().limit > 0) {
    const auto most = static_cast<size_t>(std::max<int64_t>(1, meter.options().limit / 2) * window);
    ids.resize(std::min(ids.size(), most));
  }
  meter.expect(static_cast<int64_t>(ids.size()));
  const PerplexityResult result = meter.measure(ids, window, meter.own());
  const std::string text = tokenizer.decode(ids);
  const double share = static_cast<double>(result.tokens) / static_cast<double>(ids.size());
  const double bytes = share * static_cast<double>(text.size());
  const double words = share * static_cast<double>(words_of(text));
  Measured out;
  out.summary.all.parity = {
      {"perplexity", value_of(result.perplexity(), result.tokens)},
      {"word_perplexity",
       value_of(std::exp(result.nll / words), static_cast<int64_t>(std::llround(words)))},
      {"bits_per_byte",
       value_of(result.nll / std::log(2.0) / bytes, static_cast<int64_t>(std::llround(bytes)))}};
  out.table = fmt::format("  word perplexity {:.2f}, {:.4f} bits per byte, windows of {} tokens\n",
                          out.summary.all.parity[1].second.value,
                          out.summary.all.parity[2].second.value, window);
  return out;
}

// The rows of the memo's table, each with what the one before has.
std::vector<ContextVariant> variants_of(const Config& config) {
  // Windows of a model that reaches further by NTK or LogN are part of that; another's are its own.
  const bool extension = config.dynamic_ntk || config.logn;
  const std::vector<int64_t> own = extension ? std::vector<int64_t>() : config.windows;
  std::vector<ContextVariant> rows = {
      {"plain", false, false, own}, {"+ NTK", true, false, own}, {"+ LogN", true, true, own}};
  if (!own.empty()) return rows;  // it has windows in each of them
  // Lower layers see less: from half of the trained length to all of it, where it names none.
  const int64_t trained = config.trained_context;
  rows.push_back({"+ window", true, true,
                  config.windows.empty()
                      ? parse_windows(fmt::format("{}:{}", trained / 2, trained), config.layers)
                      : config.windows});
  return rows;
}

// Where a variant does nothing at this length: the factors of NTK and LogN are 1 up to the trained
// length, and a window as long as the text hides nothing.
bool same_as_plain(const ContextVariant& variant, int64_t length, int64_t trained) {
  return length <= trained &&
         std::all_of(variant.windows.begin(), variant.windows.end(),
                     [&](int64_t window) { return window == 0 || window >= length; });
}

std::vector<int64_t> lengths_for(const TextMeter& meter, int64_t trained) {
  if (!meter.options().lengths.empty()) return meter.options().lengths;
  std::vector<int64_t> lengths(std::begin(kLengths), std::end(kLengths));
  // A model of a short context is asked for half of it to eight times as much.
  if (trained < kLengths[1]) {
    lengths.clear();
    for (int64_t length = trained / 2; length <= 8 * trained; length *= 2) {
      lengths.push_back(length);
    }
  }
  return lengths;
}

// Each document's first tokens, as many as the longest window has; of a text of the user's, all the
// stretches of that length.
std::vector<std::vector<TokenId>> stretches(std::span<const Item> items, const TextMeter& meter,
                                            const Tokenizer& tokenizer, size_t longest) {
  const MeterOptions& options = meter.options();
  std::vector<std::vector<TokenId>> out;
  size_t most = 0;
  const auto add = [&](const std::string& text, bool all) {
    const std::vector<TokenId> ids = tokenizer.encode(text);
    most = std::max(most, ids.size());
    for (size_t begin = 0; begin + longest <= ids.size(); begin += longest) {
      out.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                       ids.begin() + static_cast<std::ptrdiff_t>(begin + longest));
      if (!all) return;
    }
  };
  const auto wanted =
      options.limit > 0
          ? static_cast<size_t>((options.limit + kLimitPerDocument - 1) / kLimitPerDocument)
          : SIZE_MAX;
  if (!options.text.empty()) {
    add(read_file(options.text), true);
  } else {
    for (size_t i = 0; i < items.size() && out.size() < wanted; ++i) add(items[i].prompt, false);
  }
  if (out.size() > wanted) out.resize(wanted);
  if (out.empty()) {
    throw_bad_input(fmt::format("no text has the {} tokens of the longest window; the longest text "
                                "has {}",
                                longest, most),
                    "--lengths names shorter windows, --text another text");
  }
  return out;
}

Measured measure_long(std::span<const Item> items, TextMeter& meter) {
  const Config& config = meter.model().config();
  const int64_t trained = config.trained_context;
  const std::vector<int64_t> lengths = lengths_for(meter, trained);
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const auto texts = stretches(items, meter, meter.model().tokenizer(), size_t(longest));
  const auto variants = variants_of(config);
  const bool first_only = meter.options().limit > 0;
  int64_t expected = 0;
  for (const int64_t length : lengths) {
    expected += first_only ? length : longest / length * length;
  }
  meter.expect(expected * static_cast<int64_t>(texts.size() * variants.size()));
  std::vector<std::vector<PerplexityResult>> cells(variants.size(),
                                                   std::vector<PerplexityResult>(lengths.size()));
  for (const auto& text : texts) {
    for (size_t l = 0; l < lengths.size(); ++l) {
      // Whole windows alone, so that no short rest is among them; of a limited run the first.
      const int64_t windows = first_only ? 1 : longest / lengths[l];
      const auto whole = static_cast<size_t>(windows * lengths[l]);
      const std::span<const TokenId> part(text.data(), whole);
      PerplexityResult plain;
      for (size_t v = 0; v < variants.size(); ++v) {
        PerplexityResult one = plain;
        if (v > 0 && same_as_plain(variants[v], lengths[l], trained)) {
          meter.skip(static_cast<int64_t>(whole));
        } else {
          one = meter.measure(part, lengths[l], variants[v]);
        }
        if (v == 0) plain = one;
        cells[v][l].nll += one.nll;
        cells[v][l].tokens += one.tokens;
      }
    }
  }
  Measured out;
  Chart chart{.title = "Perplexity by context length, trained on " + std::to_string(trained),
              .x_label = "tokens of context, as a power of two",
              .y_label = "perplexity",
              .series = {},
              .log_y = true};
  out.table = fmt::format(
      "  {}, {}\n  {:<12}", texts.size() == 1 ? "one text" : fmt::format("{} texts", texts.size()),
      first_only ? "the first window of each length" : "windows side by side", "");
  for (const int64_t length : lengths) out.table += fmt::format(" {:>9}", length);
  out.table += "\n";
  for (size_t v = 0; v < variants.size(); ++v) {
    Series series{
        .name = variants[v].name, .x = {}, .y = {}, .color = static_cast<int>(v), .markers = true};
    out.table += fmt::format("  {:<12}", variants[v].name);
    for (size_t l = 0; l < lengths.size(); ++l) {
      const double perplexity = cells[v][l].perplexity();
      Metrics cell;
      cell.parity = {{"perplexity", value_of(perplexity, cells[v][l].tokens)}};
      out.summary.groups.emplace_back(fmt::format("{}, {}", variants[v].name, lengths[l]), cell);
      out.table += fmt::format(" {:>9.3f}", perplexity);
      series.x.push_back(std::log2(static_cast<double>(lengths[l])));
      series.y.push_back(perplexity);
    }
    out.table += "\n";
    chart.series.push_back(std::move(series));
  }
  // The number that stands for the table: with everything on, at the longest.
  out.summary.all.parity = {
      {"perplexity", value_of(cells.back().back().perplexity(), cells.back().back().tokens)}};
  out.chart = draw_svg({&chart, 1}, 1);
  return out;
}

Task text_task(const std::string& name, const std::string& title) {
  Task task{.name = name};
  task.title = title;
  task.kind = Task::Kind::Text;
  task.groups = {"long"};
  task.split = "test";
  task.metric = "perplexity";
  task.lower_is_better = true;
  return task;
}

}  // namespace

Task wikitext2_task() {
  Task task = text_task("wikitext2", "WikiText-2, perplexity");
  task.published = kWikitextPublished;
  task.load = [](const DataFolder& data, const ItemOptions&) {
    Item item{.task = "wikitext2", .split = "test"};
    item.id = "wikitext2/test";
    item.prompt = read_file(data.need("wikitext2/test.txt", kWikitextPublished));
    return std::vector<Item>{std::move(item)};
  };
  task.measure = measure_wikitext;
  return task;
}

Task longdocs_task() {
  Task task = text_task("longdocs", "Long documents, perplexity by context");
  task.published = kLongPublished;
  task.load = [](const DataFolder& data, const ItemOptions&) {
    std::vector<Item> items;
    for_each_record(data.need("longdocs/math_latex.jsonl.gz", kLongPublished),
                    [&](const Json& record, int64_t row) {
                      Item item{.task = "longdocs", .split = "test"};
                      item.index = row;
                      item.id = record.at("id").string();
                      item.prompt = record.at("text").string();
                      items.push_back(std::move(item));
                    });
    return items;
  };
  task.measure = measure_long;
  return task;
}

}  // namespace quern
