// quern bench: how fast a model runs here, beside what the machine can do at best.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/bench_serve.h"
#include "compute/cpu/machine.h"
#include "compute/packed.h"
#include "core/error.h"
#include "core/json.h"

namespace quern::cli {
namespace {

struct Arguments {
  ModelArguments model;
  int64_t prompt = 512, generate = 32, depth = 0, streams = 1, repeat = 3;
  bool json = false;
};

double seconds_of(FunctionRef<void()> work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Bytes of weights that one decode step reads: all matrices once, the head too, one embedding row.
int64_t weight_bytes_per_step(const Weights& weights) {
  const auto bytes = [](const Weight& w) -> int64_t {
    switch (w.format) {
      case WeightFormat::F32:
        return w.rows * w.cols * 4;
      case WeightFormat::Gptq:
        return w.rows * w.cols * w.gptq->bits / 8;
      case WeightFormat::Packed:
        return w.packed->strip_bytes() * w.rows / kStripRows;
      default:
        return w.rows * w.cols * 2;
    }
  };
  int64_t total = bytes(weights.lm_head.weight);
  for (const Layer& layer : weights.layers) {
    for (const Linear* linear : {&layer.q, &layer.k, &layer.v, &layer.attn_out, &layer.mlp.up,
                                 &layer.mlp.gate, &layer.mlp.down}) {
      total += bytes(linear->weight);
    }
  }
  return total;
}

constexpr int64_t kPart = 512;  // tokens of a prompt at a time

// Two operations for each weight and token, and the scores and sums of attention. The last block
// makes keys and values of all tokens, and the rest of a part's last one only.
double prefill_operations(const Config& c, int64_t prompt, int64_t depth) {
  const auto tokens = static_cast<double>(prompt);
  const double blocks = static_cast<double>(count_parameters(c).matmul - c.output_vocab * c.hidden);
  const auto of_last = static_cast<double>(c.hidden * (2 * c.query_dim() + 3 * c.ffn));
  const auto left_out = static_cast<double>(prompt - (prompt + kPart - 1) / kPart);
  const double attention = 2.0 * static_cast<double>((c.layers - 1) * c.query_dim()) *
                           (2.0 * static_cast<double>(depth) + tokens);
  return 2 * (blocks * tokens - of_last * left_out) + attention * tokens;
}

void bench(const Arguments& args) {
  Model model(args.model.model, args.model.options());
  const Config& c = model.config();
  const EngineOptions& options = model.engine_options();
  const int64_t length = args.depth + std::max(args.prompt, args.generate) + 1;
  if (length > options.context && args.model.context > 0) {
    throw_bad_input(
        fmt::format("{} tokens are longer than the context, {}", length, options.context));
  }
  KvCache cache(model.backend(), c, options.kv_type, length * args.streams, args.streams);
  Runner runner(model.network(), std::max(kPart, args.streams), args.streams);
  // Ids that follow no pattern; what they are does not matter for speed.
  std::vector<int32_t> ids(static_cast<size_t>(length));
  Rng rng(1);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(c.vocab)));
  const auto feed = [&](Sequence& sequence, int64_t count) {
    for (int64_t begin = 0; begin < count; begin += kPart) {
      const auto part =
          std::span(ids).subspan(size_t(begin), size_t(std::min(kPart, count - begin)));
      const BatchItem item = {&sequence, part};
      runner.forward({&item, 1}, cache);
    }
  };
  std::vector<Sequence> sequences;
  for (int64_t s = 0; s < args.streams; ++s) {
    sequences.emplace_back(cache, c, options.rules, length);
    sequences.back().reserve(length);
    // The past is made up: what it holds does not matter for speed, and computing it takes longer
    // than what is measured. 0x3C bytes are small positive numbers in every type of the cache.
    for (int64_t page = 0; page < sequences.back().page_count(); ++page) {
      std::memset(sequences.back().pages()[page], 0x3C, static_cast<size_t>(cache.page_bytes()));
    }
    sequences.back().advance(args.depth);
  }
  std::vector<double> prefill, decode;
  for (int64_t round = 0; round <= args.repeat; ++round) {  // the first warms up
    if (args.prompt > 0) {
      sequences[0].truncate(args.depth);
      const double elapsed = seconds_of([&] { feed(sequences[0], args.prompt); });
      if (round > 0) prefill.push_back(static_cast<double>(args.prompt) / elapsed);
      sequences[0].truncate(args.depth);
    }
    if (args.generate > 0) {
      std::vector<BatchItem> batch;
      for (Sequence& sequence : sequences) {
        sequence.truncate(args.depth);
        batch.push_back({&sequence, std::span(ids).first(1)});
      }
      const double elapsed = seconds_of([&] {
        for (int64_t i = 0; i < args.generate; ++i) {
          runner.logits(runner.forward(batch, cache));
        }
      });
      if (round > 0) decode.push_back(static_cast<double>(args.generate * args.streams) / elapsed);
    }
  }
  const cpu::Isa isa = model.backend().isa();
  const double bandwidth = cpu::measured_read_bandwidth(model.pool(), isa);
  const double peak = cpu::measured_fma_peak(model.pool(), isa);
  const auto arithmetic =
      model.backend().measured_arithmetic(model.weights().layers[0].attn_out.weight);

  const int64_t kv_bytes = static_cast<int64_t>(KvCache::bytes_per_token(c, options.kv_type)) *
                           (args.depth + args.generate / 2);
  const int64_t step_bytes = weight_bytes_per_step(model.weights()) + args.streams * kv_bytes;
  nlohmann::ordered_json out = {{"model", args.model.model},
                                {"weights", model.loaded().description()},
                                {"instruction_set", cpu::name(isa)},
                                {"threads", model.pool().size()},
                                {"prompt", args.prompt},
                                {"generate", args.generate},
                                {"depth", args.depth},
                                {"streams", args.streams},
                                {"read_bandwidth_gb_per_s", bandwidth / 1e9},
                                {"fma_peak_gflop_per_s", peak / 1e9},
                                {"prefill_arithmetic", arithmetic.name},
                                {"arithmetic_peak_gop_per_s", arithmetic.peak / 1e9}};
  if (!prefill.empty()) {
    const double speed = median(prefill);
    const double flops =
        prefill_operations(c, args.prompt, args.depth) * speed / static_cast<double>(args.prompt);
    out["prefill_tokens_per_s"] = speed;
    out["prefill_gflop_per_s"] = flops / 1e9;
    out["prefill_share_of_fma_peak"] = flops / peak;
    out["prefill_share_of_peak"] = flops / arithmetic.peak;
  }
  if (!decode.empty()) {
    const double speed = median(decode);
    const double moved =
        speed / static_cast<double>(args.streams) * static_cast<double>(step_bytes);
    out["decode_tokens_per_s"] = speed;
    out["bytes_per_token"] = step_bytes / args.streams;
    out["decode_gb_per_s"] = moved / 1e9;
    out["decode_share_of_bandwidth"] = moved / bandwidth;
  }
  if (args.json) {
    print(dump(out) + "\n");
    return;
  }
  print(fmt::format("{}: {}, {}, {} threads\n", args.model.model, model.loaded().description(),
                    cpu::name(isa), model.pool().size()));
  print(fmt::format(
      "machine    {:.1f} GB/s read, {:.0f} GFLOP/s float32{}\n", bandwidth / 1e9, peak / 1e9,
      arithmetic.name == "float32"
          ? std::string()
          : fmt::format(", {:.0f} Gop/s {}", arithmetic.peak / 1e9, arithmetic.name)));
  if (!prefill.empty()) {
    print(fmt::format("prefill    {} tokens: {}, {:.0f} Gop/s in {}, {:.0f} % of its peak\n",
                      args.prompt, rate(median(prefill), "tokens/s"),
                      out["prefill_gflop_per_s"].get<double>(), arithmetic.name,
                      100 * out["prefill_share_of_peak"].get<double>()));
  }
  if (!decode.empty()) {
    print(
        fmt::format("decode     {} stream{} at depth {}: {}, {:.1f} GB/s, {:.0f} % of the "
                    "bandwidth\n",
                    args.streams, args.streams == 1 ? "" : "s", args.depth,
                    rate(median(decode), "tokens/s"), out["decode_gb_per_s"].get<double>(),
                    100 * out["decode_share_of_bandwidth"].get<double>()));
  }
}

}  // namespace

void add_bench(CLI::App& root) {
  Command bench_command(root, "bench", "Measure speed against the machine's limits");
  Command command(bench_command.app(), "model", "Prefill and decode of a checkpoint",
                  {{"bench model Qwen-7B --prompt 512 --generate 64", "one stream"},
                   {"bench model Qwen-7B --streams 8 --depth 4096 --json",
                    "eight streams, each behind 4,096 tokens"}});
  auto args = std::make_shared<Arguments>();
  args->model.declare(command);
  command.group("Benchmark");
  command.option("--prompt", args->prompt, "Prefill length in tokens; 0 = none")
      .range(int64_t{0}, int64_t{1} << 24);
  command.option("--generate", args->generate, "Decode steps; 0 = none")
      .range(int64_t{0}, int64_t{1} << 24);
  command.option("--depth", args->depth, "Tokens in the KV cache before")
      .range(int64_t{0}, int64_t{1} << 24);
  command.option("--streams", args->streams, "Sequences that decode together").range(1, 1024);
  command.option("--repeat", args->repeat, "Runs; the median is reported").range(1, 1000);
  command.flag("--json", args->json, "Print one JSON object");
  command.refuse({"--streams"}, "goes with --generate", [args] { return args->generate == 0; });
  command.on_run([args] { bench(*args); });
  add_bench_serve(bench_command.app());
}

}  // namespace quern::cli
