#include "data/mix.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "core/toml.h"

namespace quern {
namespace {

// Documents of one source, in the order of its files.
struct Measured {
  std::vector<size_t> inputs;  // indices among the options' inputs
  std::vector<float> sizes;
  double size = 0;
};

// When a document comes, within an epoch of its source: random numbers by which all are ordered.
uint64_t key_of(uint64_t seed, size_t source, uint64_t epoch, uint64_t document) {
  const auto words = philox({static_cast<uint32_t>(document), static_cast<uint32_t>(document >> 32),
                             static_cast<uint32_t>(epoch), static_cast<uint32_t>(source)},
                            {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return uint64_t{words[0]} << 32 | words[1];
}

// Which documents of a source are in the mix: all of them `whole` times, and once more those whose
// key of that epoch is at most `last`.
struct Draw {
  uint64_t whole = 0;
  uint64_t last = 0;
  bool partial = false;
};

Draw draw(const Measured& source, size_t index, double wanted, uint64_t seed) {
  Draw out;
  if (source.size <= 0) return out;
  out.whole = static_cast<uint64_t>(wanted / source.size + 1e-9);
  const double rest = wanted - static_cast<double>(out.whole) * source.size;
  if (rest <= 1e-9 * source.size) return out;
  std::vector<std::pair<uint64_t, float>> order;
  for (size_t i = 0; i < source.sizes.size(); ++i) {
    order.emplace_back(key_of(seed, index, out.whole, i), source.sizes[i]);
  }
  std::ranges::sort(order);
  double size = 0;
  for (const auto& [key, bytes] : order) {
    // The document that passes the mark is taken if more than half of it lies before.
    if (size + static_cast<double>(bytes) / 2 > rest) break;
    size += static_cast<double>(bytes);
    out.last = key;
    out.partial = true;
  }
  return out;
}

class MixStage final : public Stage {
 public:
  MixStage(const MixPlan& plan, const std::string& measured) : plan_(plan), measured_(measured) {}
  std::string_view name() const override { return "mix"; }
  nlohmann::ordered_json settings() const override {
    nlohmann::ordered_json out = {{"seed", plan_.seed},
                                  {"total", plan_.total},
                                  {"shard_bytes", plan_.shard_bytes},
                                  {"measured", measured_},
                                  {"sources", nlohmann::ordered_json::array()}};
    for (const MixSource& source : plan_.sources) {
      out["sources"].push_back({{"name", source.name},
                                {"files", source.files},
                                {"weight", source.weight},
                                {"epochs", source.epochs},
                                {"cap", source.cap}});
    }
    return out;
  }
  std::unique_ptr<StageWorker> worker() const override { return nullptr; }

 private:
  const MixPlan& plan_;
  const std::string& measured_;
};

class Mixer {
 public:
  Mixer(const MixPlan& plan, const StageOptions& options,
        const std::function<double(std::string_view)>& measure)
      : plan_(plan), options_(options), measure_(measure) {}

  // `inputs` of each source.
  WrittenShards write(const std::vector<std::vector<size_t>>& inputs, MixReport& report) {
    std::vector<double> weights, limits;
    written_.input_documents.resize(options_.inputs.size());
    for (size_t s = 0; s < plan_.sources.size(); ++s) {
      sources_.push_back(scan(inputs[s]));
      const MixSource& source = plan_.sources[s];
      if (sources_[s].size <= 0) {
        throw_bad_input(fmt::format("the source {} has no text", source.name));
      }
      weights.push_back(source.weight);
      const double limit = sources_[s].size * source.epochs;
      limits.push_back(source.cap > 0 ? std::min(limit, source.cap) : limit);
    }
    double total = plan_.total;
    if (total == 0) {
      const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
      total = std::numeric_limits<double>::infinity();
      for (size_t s = 0; s < weights.size(); ++s) {
        if (weights[s] > 0) total = std::min(total, limits[s] / weights[s] * all);
      }
    }
    const std::vector<double> parts = shares(weights, limits, total);
    for (size_t s = 0; s < sources_.size(); ++s) {
      draws_.push_back(draw(sources_[s], s, parts[s], plan_.seed));
      report.sources.push_back({plan_.sources[s].name, 0, 0, sources_[s].size, 0});
    }
    fill_buckets(total, report);
    for (size_t bucket = 0; bucket < buckets_; ++bucket) write_shard(bucket);
    fs::remove_all(folder());
    for (MixReport::Source& source : report.sources) {
      source.epochs = source.size / source.available;
      report.size += source.size;
    }
    written_.report = report_;
    return std::move(written_);
  }

 private:
  fs::path folder() const { return options_.out / ".mix"; }
  fs::path bucket_file(size_t bucket) const { return folder() / fmt::format("{:05}", bucket); }

  // Calls `see` with each record of these inputs that can be read.
  void each_record(const std::vector<size_t>& inputs,
                   const std::function<void(Record&, size_t input)>& see, bool count) {
    for (const size_t input : inputs) {
      BatchReader reader(options_, input);
      while (const auto batch = reader.next()) {
        for_each_line(*batch, [&](std::string_view line, const Place& place) {
          if (count) report_.line_bytes += line.size();
          try {
            Record record(parser_, line, "");
            see(record, input);
          } catch (const Error& error) {
            if (error.kind() != Kind::BadInput) throw;
            const std::string problem = fmt::format(
                "{}: line {} {}", options_.inputs[input].string(), place.line, error.what());
            if (options_.strict) throw_bad_input(problem);
            if (!count) return;
            ++report_.bad;
            if (report_.first_bad.empty()) report_.first_bad = problem;
          }
        });
        if (options_.on_progress) options_.on_progress(done_ + reader.consumed_bytes());
      }
      done_ += fs::file_size(options_.inputs[input]);
    }
  }

  Measured scan(const std::vector<size_t>& inputs) {
    Measured out;
    out.inputs = inputs;
    each_record(
        inputs,
        [&](const Record& record, size_t input) {
          // A conversation has no text; its record stands for it.
          const std::optional<std::string> text = record.string("text");
          const auto size = static_cast<float>(measure_(text ? *text : record.json()));
          out.sizes.push_back(size);
          out.size += static_cast<double>(size);
          record_bytes_ += record.json().size();
          ++written_.input_documents[input];
          ++report_.in;
        },
        /*count=*/true);
    return out;
  }

  void fill_buckets(double total, MixReport& report) {
    double all = 0;
    for (const Measured& source : sources_) all += source.size;
    const double bytes = static_cast<double>(record_bytes_) / all * total;
    buckets_ = static_cast<size_t>(std::clamp(std::ceil(bytes / plan_.shard_bytes), 1.0, 4096.0));
    fs::remove_all(folder());
    fs::create_directories(folder());
    std::vector<std::string> waiting(buckets_);
    const auto flush = [&](size_t bucket, size_t least) {
      if (waiting[bucket].size() < least) return;
      std::ofstream file(bucket_file(bucket), std::ios::app | std::ios::binary);
      file << waiting[bucket];
      if (!file.flush()) throw_errno(bucket_file(bucket).string(), "cannot write");
      waiting[bucket].clear();
    };
    done_ = 0;
    for (size_t s = 0; s < sources_.size(); ++s) {
      size_t document = 0;
      each_record(
          sources_[s].inputs,
          [&](Record& record, size_t) {
            if (record.raw("source").empty()) record.set("source", plan_.sources[s].name);
            const std::string line = record.json();
            const Draw& drawn = draws_[s];
            for (uint64_t epoch = 0; epoch <= drawn.whole; ++epoch) {
              const uint64_t key = key_of(plan_.seed, s, epoch, document);
              if (epoch == drawn.whole && (!drawn.partial || key > drawn.last)) break;
              ++report.sources[s].documents;
              report.sources[s].size += static_cast<double>(sources_[s].sizes[document]);
              // Of the last epoch low keys are drawn: another word spreads them over the whole.
              const uint64_t place = key_of(plan_.seed ^ 0x5DEECE66Du, s, epoch, document);
              const auto bucket = static_cast<size_t>((place >> 32) * buckets_ >> 32);
              waiting[bucket] += fmt::format("{:016x}", place) + line + "\n";
              flush(bucket, 1 << 18);
            }
            ++document;
          },
          /*count=*/false);
    }
    for (size_t bucket = 0; bucket < buckets_; ++bucket) flush(bucket, 1);
  }

  void write_shard(size_t bucket) {
    std::string text;
    if (fs::exists(bucket_file(bucket))) text = read_file(bucket_file(bucket), uint64_t{8} << 30);
    std::vector<std::string_view> lines;
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      lines.push_back(std::string_view(text).substr(at, end - at));
      at = end + 1;
    }
    std::ranges::sort(lines);
    const std::string name = shard_name(bucket);
    ShardWriter writer(options_.out / name);
    WrittenShards::Shard shard{name, 0, 0};
    for (const std::string_view line : lines) {
      const std::string_view record = line.substr(16);
      writer.write(record);
      ++shard.documents;
      shard.text_bytes += Record(parser_, record, "").string("text").value_or("").size();
    }
    writer.commit();
    report_.out += shard.documents;
    written_.shards.push_back(shard);
    fs::remove(bucket_file(bucket));
  }

  const MixPlan& plan_;
  const StageOptions& options_;
  const std::function<double(std::string_view)>& measure_;
  RecordParser parser_;
  std::vector<Measured> sources_;
  std::vector<Draw> draws_;
  WrittenShards written_;
  StageReport report_;
  uint64_t record_bytes_ = 0, done_ = 0;
  size_t buckets_ = 1;
};

}  // namespace

MixPlan MixPlan::load(const fs::path& path) {
  const Json json = parse_toml_file(path.string());
  json.only_keys({"seed", "total", "shard_mb", "source"});
  MixPlan plan;
  plan.seed = static_cast<uint64_t>(json.integer_or("seed", 0, 0));
  plan.total = json.number_or("total", 0, 0, 1e18);
  plan.shard_bytes = 1e6 * json.number_or("shard_mb", 64, 0.001, 4000);
  for (const Json& item : json.at("source").items()) {
    item.only_keys({"name", "files", "weight", "epochs", "cap"});
    MixSource source;
    source.name = item.at("name").string();
    for (const Json& file : item.at("files").items()) {
      const fs::path given = file.string();
      source.files.push_back((given.is_absolute() ? given : path.parent_path() / given).string());
    }
    source.weight = item.number_or("weight", 1, 0, 1e9);
    source.epochs = item.number_or("epochs", 1, 0.000001, 1e6);
    source.cap = item.number_or("cap", 0, 0, 1e18);
    for (const MixSource& other : plan.sources) {
      if (other.name == source.name) item.at("name").fail("is there twice");
    }
    plan.sources.push_back(std::move(source));
  }
  const auto weighs = [](const MixSource& source) { return source.weight > 0; };
  if (!std::ranges::any_of(plan.sources, weighs)) json.fail("has no source with a weight");
  return plan;
}

std::vector<double> shares(const std::vector<double>& weights, const std::vector<double>& limits,
                           double total) {
  std::vector<double> out(weights.size());
  std::vector<bool> full(weights.size());
  while (true) {
    double free = 0, left = total;
    for (size_t i = 0; i < weights.size(); ++i) (full[i] ? left -= out[i] : free += weights[i]);
    if (free <= 0) return out;
    bool more = false;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (full[i]) continue;
      out[i] = left * weights[i] / free;
      if (out[i] <= limits[i] * (1 + 1e-12)) continue;
      more = full[i] = true;
    }
    if (!more) return out;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (full[i]) out[i] = limits[i];
    }
  }
}

MixReport run_mix(const MixPlan& plan, const StageOptions& given, const std::string& measured,
                  const std::function<double(std::string_view text)>& measure) {
  StageOptions options = given;
  std::vector<std::vector<size_t>> inputs;
  options.inputs.clear();
  for (const MixSource& source : plan.sources) {
    inputs.emplace_back();
    for (const fs::path& file : expand_inputs(source.files)) {
      inputs.back().push_back(options.inputs.size());
      options.inputs.push_back(file);
    }
  }
  MixReport report;
  report.stage = run_whole_stage(MixStage(plan, measured), options, [&] {
    return Mixer(plan, options, measure).write(inputs, report);
  });
  return report;
}

}  // namespace quern
