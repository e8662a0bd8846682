// quern quantize: a checkpoint to 4 or 8 bits.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/commands/arguments.h"
#include "cli/commands/checkpoint_files.h"
#include "cli/commands/model_store.h"
#include "cli/framework/output.h"
#include "core/error.h"
#include "core/json.h"
#include "core/progress.h"
#include "model/tensors.h"
#include "plot/chart.h"
#include "quantize/checkpoint.h"
#include "quantize/sensitivity.h"

namespace quern::cli {
namespace {

struct Arguments {
  std::string model, out, to, method, calibration;
  std::string embedding = "16", head = "16", plot;
  double target_bits = 0;
  std::optional<int64_t> group;
  int64_t samples = 128, length = 0, shard_mb = 5000;
  std::vector<std::string> keep = {"lm_head"};
  bool act_order = false, static_groups = false, asymmetric = false;
  bool report = false, json = false, force = false, dry_run = false;
};

std::vector<int32_t> calibration_ids(const Arguments& args, int64_t length) {
  std::vector<TokenId> ids;
  load_tokenizer(args.model)->encode(read_input(args.calibration), ids);
  const Config config = load_config(args.model);
  check_ids(ids, config, args.calibration);
  return calibration_samples(ids, args.samples, length, args.calibration);
}

void print_report(const std::vector<MatrixReport>& rows, bool json) {
  if (json) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const MatrixReport& r : rows) {
      list.push_back({{"module", r.module},
                      {"rows", r.rows},
                      {"cols", r.cols},
                      {"bits", r.bits},
                      {"group", r.group},
                      {"method", r.gptq ? "gptq" : "rtn"},
                      {"weight_error", r.weight_error}});
      if (r.output_error) list.back()["output_error"] = *r.output_error;
      if (r.damping > 0) list.back()["damping"] = r.damping;
    }
    print(dump(nlohmann::ordered_json{{"matrices", list}}, 2) + "\n");
    return;
  }
  print(fmt::format("{:<44} {:>14} {:>4} {:>6} {:>6} {:>12} {:>12}\n", "matrix", "shape", "bits",
                    "group", "method", "weight error", "output error"));
  for (const MatrixReport& r : rows) {
    const std::string output =
        r.output_error ? fmt::format("{:.3g} %", 100 * *r.output_error) : std::string("-");
    print(fmt::format("{:<44} {:>14} {:>4} {:>6} {:>6} {:>12} {:>12}{}\n", r.module,
                      fmt::format("{} x {}", r.rows, r.cols), r.bits, r.group,
                      r.gptq ? "gptq" : "rtn", fmt::format("{:.3g} %", 100 * r.weight_error),
                      output, r.damping > 0.011 ? fmt::format("  damped by {:g}", r.damping) : ""));
  }
}

// A picture of each kind of matrix's error over the layers.
void draw_report(const std::vector<MatrixReport>& rows, const std::string& path) {
  const bool outputs = rows[0].output_error.has_value();
  Chart chart = {.title = outputs ? "What outputs lost" : "What weights lost",
                 .x_label = "layer",
                 .y_label = "share of the sum of squares",
                 .log_y = true};
  std::map<std::string, Series> kinds;
  for (const MatrixReport& r : rows) {
    // "transformer.h.3.mlp.w1": the layer's number stands between dots; head and embedding have
    // none.
    const size_t digit = r.module.find_first_of("0123456789");
    const size_t end = digit == std::string::npos ? digit : r.module.find('.', digit);
    if (end == std::string::npos) continue;
    Series& series = kinds[r.module.substr(end + 1)];
    series.x.push_back(std::stod(r.module.substr(digit, end - digit)));
    series.y.push_back(outputs ? r.output_error.value_or(0) : r.weight_error);
  }
  for (auto& [name, series] : kinds) {
    series.name = name;
    series.color = static_cast<int>(chart.series.size());
    series.markers = true;
    chart.series.push_back(std::move(series));
  }
  write_picture(path, draw_svg({&chart, 1}, 1));
}

bool wants_int8(const char* option, const std::string& value) {
  if (value == "int8" || value == "16") return value == "int8";
  throw Error(Kind::Misused, fmt::format("{} is '{}'", option, printable(value, 40)),
              "expected 16 or int8");
}

// The matrices that a job turns into few bits.
std::vector<TensorSpec> quantized_matrices(const Arguments& args) {
  std::vector<TensorSpec> out;
  for (const TensorSpec& spec : tensor_specs(load_config(args.model))) {
    const bool kept = std::any_of(args.keep.begin(), args.keep.end(), [&](const std::string& part) {
      return part != "none" && spec.name.find(part) != std::string::npos;
    });
    if (spec.role == Role::Matrix && !kept) out.push_back(spec);
  }
  return out;
}

// 128 inputs to a scale, or the most below it that divide every matrix.
int64_t widest_group(const std::vector<TensorSpec>& matrices) {
  int64_t group = 128;
  for (const TensorSpec& spec : matrices) {
    while (spec.shape[1] % group != 0) group /= 2;
  }
  return group;
}

// Prints what a job would read and make.
void describe(const QuantizeJob& job, const std::vector<TensorSpec>& matrices, bool json) {
  int64_t weights = 0;
  for (const TensorSpec& spec : matrices) weights += spec.shape.count();
  int64_t others = 0;
  for (const TensorSpec& spec : tensor_specs(load_config(job.model))) others += spec.shape.count();
  others -= weights;
  const double bits = job.target_bits > 0 ? job.target_bits
                                          : BitChoice{job.settings.bits, job.settings.group > 0
                                                                             ? job.settings.group
                                                                             : matrices[0].shape[1]}
                                                .bits_per_weight();
  const auto bytes = static_cast<uint64_t>(static_cast<double>(weights) * bits / 8) +
                     static_cast<uint64_t>(2 * others);
  const auto space = fs::space(fs::absolute(job.out).parent_path());
  if (json) {
    print(dump(nlohmann::ordered_json{{"matrices", matrices.size()},
                                      {"weights", weights},
                                      {"group", job.settings.group},
                                      {"bits_per_weight", bits},
                                      {"output_bytes", bytes},
                                      {"free_bytes", space.available},
                                      {"calibration_tokens", job.calibration.size()}}) +
          "\n");
    return;
  }
  print(fmt::format("matrices     {} with {} weights, groups of {}, {:.4g} bits per weight\n",
                    matrices.size(), human_count(static_cast<uint64_t>(weights)),
                    job.settings.group, bits));
  print(fmt::format("output       about {}, {} are free there\n", human_bytes(bytes),
                    human_bytes(space.available)));
  if (job.gptq) {
    print(fmt::format("calibration  {} sequences of {} tokens\n",
                      static_cast<int64_t>(job.calibration.size()) / job.length, job.length));
  }
}

// Quantizes. Where it ends early, the error says whether the same command goes on; a folder from
// which nothing could be gone on with is taken away.
std::vector<MatrixReport> quantize(const QuantizeJob& job, ThreadPool& pool) {
  const fs::path partial = job.out.string() + ".quantizing";
  const bool found = fs::exists(partial);
  try {
    return quantize_checkpoint(job, pool);
  } catch (const Error& failure) {
    size_t blocks = 0;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(partial, ignored)) {
      const std::string name = entry.path().filename().string();
      blocks += name.starts_with("block-") && name.ends_with(".safetensors");
    }
    if (blocks > 0) {
      throw Error(failure.kind(), failure.what(),
                  fmt::format("{}{}the same command goes on from {}, where {} blocks are done",
                              failure.hint(), failure.hint().empty() ? "" : "; ", partial.string(),
                              blocks));
    }
    if (!found) fs::remove_all(partial, ignored);
    throw;
  }
}

std::string method_of(const Arguments& args) {
  if (!args.method.empty()) return args.method;
  return args.calibration.empty() && args.target_bits == 0 ? "rtn" : "gptq";
}

void run(const Arguments& args) {
  const bool choose = args.target_bits > 0;
  if (choose && !args.to.empty()) {
    throw Error(Kind::Misused, "--to and --target-bits exclude each other");
  }
  if (!choose && args.to != "int4" && args.to != "int8") {
    throw Error(Kind::Misused,
                args.to.empty() ? std::string("neither --to nor --target-bits is given")
                                : fmt::format("--to is '{}'", printable(args.to, 40)),
                "expected --to int4 or int8, or --target-bits");
  }
  const std::string method = method_of(args);
  if (method != "rtn" && method != "gptq") {
    throw Error(Kind::Misused, fmt::format("--method is '{}'", printable(method, 40)),
                "expected rtn or gptq");
  }
  const bool solve = method == "gptq";
  if (choose && !solve) {
    throw Error(Kind::Misused, "--target-bits chooses each matrix's method itself",
                "leave --method out");
  }
  if (solve && args.calibration.empty()) {
    throw Error(Kind::Misused,
                fmt::format("{} needs a text to calibrate with",
                            choose ? "--target-bits" : "--method gptq"),
                "name one with --calibration");
  }
  claim_output(args.out, args.force);
  if (!args.plot.empty()) claim_output(args.plot, args.force);
  if (choose && args.group.value_or(1) < 0) {
    throw Error(Kind::Misused, "--target-bits takes no --group -1",
                "expected the largest number of inputs that may share a scale");
  }
  if (!fs::exists(args.model)) throw_bad_input(args.model + ": there is no such folder");
  const std::vector<TensorSpec> matrices = quantized_matrices(args);
  const int64_t group = args.group.value_or(widest_group(matrices));
  if (group == 0) throw Error(Kind::Misused, "--group is 0, expected a number of inputs or -1");
  if (!args.group && group < 128 && !args.json) {
    print(fmt::format("groups of {}: 128 does not divide the matrices' inputs\n", group));
  }
  QuantizeJob job;
  job.model = args.model;
  // The old checkpoint stays until the new one is whole.
  const bool replaces = is_taken(args.out);
  job.out = replaces ? args.out + ".new" : args.out;
  job.gptq = solve;
  job.settings = {.bits = args.to == "int8" ? 8 : 4,
                  .group = group,
                  .symmetric = !args.asymmetric,
                  .act_order = solve && args.act_order,
                  .static_groups = solve && args.static_groups};
  job.target_bits = args.target_bits;
  job.embedding_int8 = wants_int8("--embedding", args.embedding);
  job.head_int8 = wants_int8("--head", args.head);
  for (const std::string& part : args.keep) {
    if (part != "none") job.keep.push_back(part);
  }
  job.measure = solve && (args.report || !args.plot.empty());
  job.max_shard_bytes = static_cast<uint64_t>(args.shard_mb) * 1'000'000;
  job.add_files = [&](const fs::path& folder) { copy_side_files(args.model, folder); };
  if (solve) {
    const Config config = load_config(args.model);
    job.length = args.length > 0 ? args.length : std::min<int64_t>(512, config.trained_context);
    if (job.length > config.trained_context) {
      throw Error(Kind::Misused, fmt::format("--length is {}, the model was trained on {} tokens",
                                             job.length, config.trained_context));
    }
    job.calibration = calibration_ids(args, job.length);
  }
  if (args.dry_run) return describe(job, matrices, args.json);
  const InterruptScope scope;  // what is done stays, to go on from
  std::optional<Progress> progress;
  job.on_progress = [&](uint64_t done, uint64_t total, std::string_view module) {
    check_interrupted();
    if (!progress) progress.emplace("quantizing", total, "weights", done);
    progress->update(done, module);
  };
  ThreadPool pool(globals().threads);
  const std::vector<MatrixReport> rows = quantize(job, pool);
  if (replaces) replace_output(job.out, args.out);
  if (progress) progress->finish();
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(args.out)) {
    if (entry.path().extension() == ".safetensors") bytes += fs::file_size(entry.path());
  }
  if (!args.plot.empty()) draw_report(rows, args.plot);
  if (args.report || args.json) print_report(rows, args.json);
  if (args.json) return;
  double bits = 0, weights = 0;
  for (const MatrixReport& r : rows) {
    const auto count = static_cast<double>(r.rows * r.cols);
    bits += count * BitChoice{r.bits, r.group}.bits_per_weight();
    weights += count;
  }
  print(fmt::format("{}: {} matrices to {:.4g} bits per weight ({}), {}\n", args.out, rows.size(),
                    bits / weights, choose ? "chosen by matrix" : method, human_bytes(bytes)));
  print(fmt::format("try: quern generate {} \"...\"\n", args.out));
}

}  // namespace

void add_quantize(CLI::App& root) {
  Command command(
      root, "quantize", "Quantize a checkpoint to 4 or 8 bits, in the layout of GPTQ checkpoints",
      {{"quantize Qwen-7B Qwen-7B-Int8 --to int8 --group 8", "rounded to nearest"},
       {"quantize Qwen-7B Qwen-7B-Int4 --to int4 --group 8 --calibration book.txt --samples 4 "
        "--length 128 --report",
        "by GPTQ, with what it loses"},
       {"quantize Qwen-7B Qwen-7B-mixed --target-bits 8 --group 8 --calibration book.txt "
        "--samples 4 --length 128",
        "bits, group and method chosen per matrix"}});
  auto args = std::make_shared<Arguments>();
  command.positional("model", args->model, "Checkpoint folder")
      .folder()
      .required()
      .replaced(resolve_model);
  command.positional("out", args->out, "Folder to make").folder().required();
  command.option("--to", args->to, "Data type of the matrices", "--target-bits")
      .one_of({"int4", "int8"})
      .usual();
  command
      .option(
          "--target-bits", args->target_bits,
          "Choose bits, group size and method per matrix, so that the average per weight, scales "
          "and zeros included, is at most this; 0 = --to for all")
      .range(0.0, 16.0)
      .usual();
  command
      .option("--group", args->group, "Group size: inputs that share a scale; -1 = the whole row",
              "128, or the most below it that divides the matrices' inputs")
      .range(int64_t{-1}, int64_t{1} << 24)
      .usual();
  command
      .option("--method", args->method, "GPTQ, or round to nearest (rtn)",
              "gptq with --calibration, else rtn")
      .one_of({"gptq", "rtn"})
      .usual();
  command.flag("--asymmetric", args->asymmetric, "Asymmetric: a zero point per group");
  command
      .option("--keep", args->keep,
              "Matrices to keep in 16 bits, by parts of their names; none = quantize lm_head too",
              "lm_head")
      .separated_by(',');
  command.option("--embedding", args->embedding, "Data type of the embedding")
      .one_of({"16", "int8"});
  command.option("--head", args->head, "Data type of lm_head; int8 overrides --keep")
      .one_of({"16", "int8"});
  command.option("--shard-size", args->shard_mb, "Largest weight file in MB")
      .range(int64_t{1}, int64_t{1} << 40);
  command.group("GPTQ");
  command
      .option("--calibration", args->calibration, "Calibration text, like what the model will read")
      .file()
      .usual();
  command.option("--samples", args->samples, "Calibration sequences")
      .range(int64_t{1}, int64_t{1} << 20)
      .usual();
  command
      .option("--length", args->length,
              "Tokens per calibration sequence; 0 = 512, or the trained context")
      .range(int64_t{0}, int64_t{1} << 20);
  command.flag("--act-order", args->act_order, "Quantize columns by decreasing activation size");
  command.flag("--static-groups", args->static_groups,
               "Keep groups contiguous: as fast as without --act-order");
  command.group("Output");
  command.flag("--report", args->report, "Print the error of each matrix").usual();
  command.option("--plot", args->plot, "Draw the errors to an .svg or .png file").file();
  command.flag("--dry-run", args->dry_run, "Check the inputs, print what would be made, and end")
      .usual();
  command.flag("--force", args->force, "Replace what is there");
  command.flag("--json", args->json, "Print the report as one JSON object");
  command.refuse({"--calibration"}, "and --method rtn exclude each other",
                 [args] { return args->method == "rtn"; });
  command.refuse({"--samples", "--length", "--act-order", "--static-groups"},
                 "goes with --method gptq", [args] { return method_of(*args) == "rtn"; });
  command.on_run([args] { run(*args); });
}

}  // namespace quern::cli
