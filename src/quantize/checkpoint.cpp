#include "quantize/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "core/log.h"
#include "formats/gguf.h"
#include "formats/gptq.h"
#include "model/pack_weights.h"
#include "model/stored_tensors.h"
#include "quantize/calibration.h"
#include "quantize/matrix_reader.h"
#include "quantize/sensitivity.h"

namespace quern {
namespace {

constexpr int64_t kRowsAtOnce = 16384;  // of a head or an embedding, to be quantized
constexpr int64_t kRowsCopied = 512;    // of one that is not: memory that is used again stays fast
constexpr size_t kSequencesMeasured = 4;  // for the choice of bits

size_t at(int64_t i) { return static_cast<size_t>(i); }

// The calibration text goes through large matrices as it does in inference: rounded to bfloat16
// where the CPU multiplies such numbers. What that adds to the second moments is a hundredth of the
// damping.
Precision precision_of(const Config& config) {
  constexpr int64_t kLarge = 2048;
  return config.hidden >= kLarge && CpuTrainingBackend::supports(Precision::BF16) ? Precision::BF16
                                                                                  : Precision::F32;
}

class Quantizer {
 public:
  Quantizer(const QuantizeJob& job, ThreadPool& pool)
      : job_(job),
        pool_(pool),
        backend_(pool),
        config_([&] {
          if (is_gguf(job.model)) {
            throw_bad_input(job.model.string() + ": is a GGUF file",
                            "start from the checkpoint that it was made of, or from what 'quern "
                            "convert' makes of it");
          }
          return load_config(job.model);
        }()),
        forward_(pool, cpu::chosen_isa(), precision_of(config_)),
        loaded_([&] {
          if (const auto already = read_gptq_config(job.model)) {
            throw_bad_input(fmt::format("{}: is quantized already (GPTQ int{})", job.model.string(),
                                        already->bits),
                            "start from the float checkpoint");
          }
          return LoadedWeights::load(job.model, config_, {.pack = false});
        }()),
        weights_(loaded_.weights()),
        reader_(backend_, config_, loaded_.weights(), job.model.string()),
        partial_(job.out.string() + ".quantizing"),
        specs_(tensor_specs(config_)) {
    for (const TensorSpec& spec : specs_) {
      if (!quantized(spec)) continue;
      total_ += static_cast<uint64_t>(spec.shape.count());
      if (spec.role == Role::Head) outer_.insert(outer_.begin(), spec);
      if (spec.role == Role::Embedding) outer_.push_back(spec);
    }
    if (total_ == 0) {
      throw Error(Kind::Misused, "--keep leaves no matrix to quantize");
    }
    if (job_.target_bits > 0 && config_.experts.count > 0) {
      throw Error(Kind::Unsupported,
                  job_.model.string() + ": bits are not chosen by matrix for models with experts",
                  "give all of them the same, --to int4 or int8");
    }
  }

  std::vector<MatrixReport> run() {
    open_partial();
    const int64_t units = config_.layers + static_cast<int64_t>(outer_.size());
    int64_t next = 0;
    while (next < units && fs::exists(unit_file(next))) ++next;
    if (next > 0) {
      log::info(
          fmt::format("{}: {} of {} blocks are done, going on", partial_.string(), next, units));
    }
    for (int64_t unit = 0; unit < next; ++unit) recall(unit);
    if (job_.target_bits > 0) choose();
    Calibration calibration(forward_, pool_, config_, std::max<int64_t>(job_.length, 1),
                            [this] { tell_progress(); });
    if (needs_stream(next)) {
      if (next == 0) {
        calibration.embed(weights_, job_.calibration);
      } else {
        recall_stream(calibration.stream(), next);
      }
    }
    for (int64_t unit = next; unit < units; ++unit) {
      if (unit < config_.layers) {
        quantize_block(unit, calibration);
      } else {
        quantize_outer(outer_[at(unit - config_.layers)], calibration);
      }
      if (needs_stream(unit + 1)) {
        AtomicFile file(stream_file(unit + 1));
        file.write(std::as_bytes(std::span(std::as_const(calibration.stream()))));
        file.commit();
      }
      save(unit);
      std::error_code ignored;
      fs::remove(stream_file(unit), ignored);
    }
    assemble(units);
    fs::remove_all(partial_);
    return std::move(reports_);
  }

 private:
  bool kept(const TensorSpec& spec) const {
    return std::any_of(job_.keep.begin(), job_.keep.end(), [&](const std::string& part) {
      return !part.empty() && spec.module.find(part) != std::string::npos;
    });
  }
  bool quantized(const TensorSpec& spec) const {
    if (spec.role == Role::Embedding) return job_.embedding_int8 && spec.part == Part::Embedding;
    if (spec.part == Part::Router || spec.part == Part::SharedRouter) return false;
    if (spec.role == Role::Head && job_.head_int8) return true;
    return (spec.role == Role::Matrix || spec.role == Role::Head) && !kept(spec);
  }
  // Embeddings, and a head that is asked for in 8 bits, have bits of their own.
  bool follows_settings(const TensorSpec& spec) const {
    return quantized(spec) && spec.role != Role::Embedding &&
           !(spec.role == Role::Head && job_.head_int8);
  }
  // Whether the calibration text has to have come as far as this unit.
  bool needs_stream(int64_t unit) const {
    if (!job_.gptq || unit > config_.layers) return false;
    return unit < config_.layers || (!outer_.empty() && follows_settings(outer_[0]));
  }

  // What an expert gives to its last matrix differs by token and expert: those round to nearest.
  bool rounds(const TensorSpec& spec) const {
    return (spec.part == Part::Down || spec.part == Part::ExpertDown) && spec.layer >= 0 &&
           config_.has_experts(spec.layer);
  }

  MatrixPlan plan_of(const TensorSpec& spec) const {
    MatrixPlan plan = {.settings = job_.settings,
                       .method = job_.gptq ? QuantizeMethod::Gptq : QuantizeMethod::Nearest};
    if (!follows_settings(spec)) {
      plan.settings.bits = 8;
      plan.method = QuantizeMethod::Nearest;
    }
    if (rounds(spec)) plan.method = QuantizeMethod::Nearest;
    if (const auto chosen = chosen_.find(spec.module); chosen != chosen_.end()) {
      plan.settings.bits = chosen->second.bits;
      plan.settings.group = chosen->second.group;
      plan.method = QuantizeMethod::Better;
    }
    return plan;
  }

  void choose() {
    const fs::path file = partial_ / "bits.json";
    if (fs::exists(file)) {
      for (const Json& row : Json::parse_file(file.string()).items()) {
        chosen_[row.at("module").string()] = {static_cast<int>(row.at("bits").integer(4, 8)),
                                              row.at("group").integer()};
      }
      return;
    }
    std::vector<TensorSpec> specs;
    std::copy_if(specs_.begin(), specs_.end(), std::back_inserter(specs),
                 [&](const TensorSpec& spec) { return follows_settings(spec); });
    if (specs.empty()) {
      throw Error(Kind::Misused, "--keep leaves no matrix to choose bits for");
    }
    const std::span<const int32_t> ids(job_.calibration);
    const auto measured = static_cast<size_t>(job_.length) * kSequencesMeasured;
    const std::vector<Sensitivity> sensitivity = measure_sensitivity(
        {.backend = forward_,
         .pool = pool_,
         .config = config_,
         .reader = reader_,
         .specs = specs,
         .settings = job_.settings,
         .ids = ids.first(std::min(ids.size(), measured)),
         .length = job_.length,
         .on_layer =
             [&](int64_t layer) {
               at_work_ = fmt::format("measuring block {} of {}", layer, config_.layers);
             },
         .tick = [this] { tell_progress(); }});
    const std::vector<BitChoice> chosen = choose_bits(sensitivity, job_.target_bits);
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (size_t i = 0; i < chosen.size(); ++i) {
      chosen_[sensitivity[i].module] = chosen[i];
      rows.push_back({{"module", sensitivity[i].module},
                      {"bits", chosen[i].bits},
                      {"group", chosen[i].group}});
    }
    write_file(file, dump(rows) + "\n");
  }

  fs::path unit_file(int64_t unit) const {
    return partial_ / fmt::format("block-{:05}.safetensors", unit);
  }
  fs::path report_file(int64_t unit) const {
    return partial_ / fmt::format("block-{:05}.json", unit);
  }
  fs::path stream_file(int64_t unit) const {
    return partial_ / fmt::format("stream-{:05}.bin", unit);
  }

  // What the results depend on. Large weights are told apart by size and time, not by their bytes.
  std::string fingerprint() const {
    const QuantizeSettings& s = job_.settings;
    nlohmann::ordered_json files = nlohmann::ordered_json::array();
    std::vector<fs::path> paths;
    for (const auto& entry : fs::directory_iterator(job_.model)) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    for (const fs::path& path : paths) {
      if (path.extension() != ".safetensors" && path.filename() != "config.json") continue;
      files.push_back({path.filename().string(), fs::file_size(path),
                       fs::last_write_time(path).time_since_epoch().count()});
    }
    const nlohmann::ordered_json all = {
        {"version", 2},
        {"files", files},
        {"gptq", job_.gptq},
        {"target_bits", job_.target_bits},
        {"embedding_int8", job_.embedding_int8},
        {"head_int8", job_.head_int8},
        {"bits", s.bits},
        {"group", s.group},
        {"symmetric", s.symmetric},
        {"act_order", s.act_order},
        {"static_groups", s.static_groups},
        {"damping", s.damping},
        {"keep", job_.keep},
        {"length", job_.length},
        {"measure", job_.measure},
        {"calibration", sha256({reinterpret_cast<const char*>(job_.calibration.data()),
                                job_.calibration.size() * sizeof(int32_t)})}};
    return dump(all) + "\n";
  }

  void open_partial() {
    const std::string wanted = fingerprint();
    const fs::path file = partial_ / "job.json";
    if (fs::exists(partial_)) {
      if (!fs::exists(file) || read_file(file) != wanted) {
        throw_bad_input(partial_.string() + ": holds the beginning of another quantization",
                        "give the same model and options to go on with it, or remove the folder");
      }
      return;
    }
    if (fs::exists(job_.out) && !(fs::is_directory(job_.out) && fs::is_empty(job_.out))) {
      throw_bad_input(job_.out.string() + ": exists already", "name a folder that does not");
    }
    AtomicFolder folder(partial_);
    write_file(folder.temporary() / "job.json", wanted);
    folder.commit();
  }

  void recall(int64_t unit) {
    const Json json = Json::parse_file(report_file(unit).string());
    for (const Json& row : json.items()) {
      MatrixReport report = {.module = row.at("module").string(),
                             .rows = row.at("rows").integer(),
                             .cols = row.at("cols").integer(),
                             .bits = static_cast<int>(row.at("bits").integer(4, 8)),
                             .group = row.at("group").integer(),
                             .gptq = row.at("gptq").boolean(),
                             .weight_error = row.at("weight_error").number(),
                             .damping = row.at("damping").number()};
      if (row.has("output_error")) report.output_error = row.at("output_error").number();
      done_ += static_cast<uint64_t>(report.rows * report.cols);
      reports_.push_back(std::move(report));
    }
  }

  void recall_stream(std::vector<float>& stream, int64_t unit) {
    const MappedFile file(stream_file(unit));
    const size_t floats = job_.calibration.size() * at(config_.hidden);
    if (file.size() != floats * sizeof(float)) {
      throw_bad_input(file.path().string() + ": is not whole", "remove the folder to start over");
    }
    stream.resize(floats);
    std::memcpy(stream.data(), file.data(), file.size());
  }

  void tell_progress() const {
    if (job_.on_progress) job_.on_progress(done_, total_, at_work_);
  }
  void begin(const TensorSpec& spec) {
    at_work_ = spec.module;
    tell_progress();
  }

  // In half precision, as the file has it.
  OwnedTensor file_tensor(const TensorSpec& spec, std::span<const float> values) const {
    return half_tensor(spec.name, file_shape(spec, config_),
                       floats_for_file(values, spec, config_));
  }

  // Quantizes the rows in the file's order: each has its own scales, so that the order of the model
  // comes back with what they became.
  void take(MatrixQuantizer& quantizer, const TensorSpec& spec, std::vector<float>& values) const {
    const std::vector<int32_t> rows = file_rows(spec, config_);
    if (rows.empty()) {
      quantizer.take(values);
      return;
    }
    const auto cols = static_cast<size_t>(spec.shape[1]);
    std::vector<float> theirs(values.size());
    const auto row = [&](std::vector<float>& of, size_t index) {
      return of.begin() + static_cast<ptrdiff_t>(index * cols);
    };
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(row(values, i), cols, row(theirs, static_cast<size_t>(rows[i])));
    }
    quantizer.take(theirs);
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(row(theirs, static_cast<size_t>(rows[i])), cols, row(values, i));
    }
  }

  void finish(const TensorSpec& spec, const MatrixQuantizer& quantizer) {
    for (OwnedTensor& tensor : quantizer.tensors()) tensors_.push_back(std::move(tensor));
    if (spec.role == Role::Matrix) {  // the layout has a bias for every one
      TensorSpec bias = spec;
      bias.name = spec.module + ".bias";
      bias.shape = Shape{spec.shape[0]};
      bias.role = Role::Bias;
      tensors_.push_back(file_tensor(bias, reader_.bias(spec)));
    }
    done_ += static_cast<uint64_t>(spec.shape.count());
    reports_.push_back(quantizer.report());
    unit_reports_ += 1;
    reader_.forget(spec);
  }

  MatrixInputs inputs_of(Hessian&& moments, const std::string& name) {
    Square h = std::move(moments).take();
    MatrixInputs inputs;
    if (job_.measure || job_.target_bits > 0) inputs.moments.assign(h.begin(), h.end());
    inputs.factor = factorize(pool_, std::move(h), job_.settings, name);
    return inputs;
  }

  void quantize_block(int64_t layer, Calibration& calibration) {
    Layer& live = weights_.layers[at(layer)];
    std::vector<TensorSpec> matrices;
    std::vector<std::vector<float>> values;
    for (const TensorSpec& spec : specs_) {
      if (spec.layer != layer) continue;
      if (spec.role == Role::Matrix) {
        matrices.push_back(spec);
        values.push_back(reader_.all(spec));
      } else if (spec.role == Role::Norm) {
        tensors_.push_back(half_tensor(spec.name, spec.shape, *norm_field(weights_, spec)));
      } else if (const auto* norm = norm_field(weights_, spec)) {  // its bias
        tensors_.push_back(half_tensor(spec.name, spec.shape, *norm));
      } else if (spec.role == Role::Bias) {
        TensorSpec matrix = spec;
        matrix.role = Role::Matrix;
        if (kept(matrix)) {
          tensors_.push_back(file_tensor(spec, reader_.bias(spec)));
        }
      }
    }
    for (size_t i = 0; i < matrices.size(); ++i) {
      const TensorSpec& spec = matrices[i];
      const Weight whole = {.format = WeightFormat::F32,
                            .rows = spec.shape[0],
                            .cols = spec.shape[1],
                            .data = reinterpret_cast<const std::byte*>(values[i].data())};
      for (const LinearSlice& slice : linears_of(weights_, spec, config_)) {
        slice.linear->weight = whole.slice(slice.first_row, slice.rows);
      }
    }
    // Matrices that share their input, in the order of the forward pass.
    const auto stage = [&](std::initializer_list<Part> parts, auto&& moments) {
      at_work_ = fmt::format("text through block {}", layer);
      std::optional<MatrixInputs> inputs;
      std::optional<Hessian> hessian;
      if (job_.gptq) hessian = moments();
      for (size_t i = 0; i < matrices.size(); ++i) {
        const TensorSpec& spec = matrices[i];
        if (std::find(parts.begin(), parts.end(), spec.part) == parts.end()) continue;
        if (!quantized(spec)) {
          tensors_.push_back(file_tensor(spec, values[i]));
          continue;
        }
        begin(spec);
        if (hessian) {
          inputs = inputs_of(std::move(*hessian), spec.module);
          hessian.reset();
        }
        MatrixQuantizer quantizer(backend_, pool_, spec.module, spec.shape[0], spec.shape[1],
                                  plan_of(spec), inputs ? &*inputs : nullptr);
        take(quantizer, spec, values[i]);
        finish(spec, quantizer);
      }
    };
    stage({Part::Qkv, Part::Q, Part::K, Part::V}, [&] { return calibration.qkv_inputs(live); });
    stage({Part::AttnOut}, [&] { return calibration.attn_out_inputs(live, layer); });
    stage({Part::Up, Part::Gate, Part::GateUp, Part::Router, Part::SharedRouter, Part::ExpertUp,
           Part::ExpertGate},
          [&] { return calibration.up_gate_inputs(live); });
    stage({Part::Down, Part::ExpertDown}, [&]() -> std::optional<Hessian> {
      if (config_.has_experts(layer)) return std::nullopt;
      return calibration.down_inputs(live);
    });
    if (job_.gptq) calibration.finish(live);
    live = loaded_.weights().layers[at(layer)];  // the floats end with this block
  }

  void quantize_outer(const TensorSpec& spec, Calibration& calibration) {
    begin(spec);
    const MatrixPlan plan = plan_of(spec);
    std::optional<MatrixInputs> inputs;
    if (plan.method != QuantizeMethod::Nearest) {
      inputs = inputs_of(calibration.head_inputs(weights_.final_norm), spec.module);
    }
    MatrixQuantizer quantizer(backend_, pool_, spec.module, spec.shape[0], spec.shape[1], plan,
                              inputs ? &*inputs : nullptr);
    for (int64_t row = 0; row < spec.shape[0]; row += kRowsAtOnce) {
      std::vector<float> values =
          reader_.rows(spec, row, std::min(kRowsAtOnce, spec.shape[0] - row));
      quantizer.take(values);
    }
    finish(spec, quantizer);
  }

  // The report first: a block counts as done when its tensors are there.
  void save(int64_t unit) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (size_t i = reports_.size() - unit_reports_; i < reports_.size(); ++i) {
      const MatrixReport& r = reports_[i];
      rows.push_back({{"module", r.module},
                      {"rows", r.rows},
                      {"cols", r.cols},
                      {"bits", r.bits},
                      {"group", r.group},
                      {"gptq", r.gptq},
                      {"weight_error", r.weight_error},
                      {"damping", r.damping}});
      if (r.output_error) rows.back()["output_error"] = *r.output_error;
    }
    write_file(report_file(unit), dump(rows) + "\n");
    std::vector<PlannedTensor> plan;
    for (const OwnedTensor& tensor : tensors_) plan.push_back(tensor.plan);
    SafetensorsWriter writer(unit_file(unit), plan);
    for (const OwnedTensor& tensor : tensors_) writer.write(tensor.bytes);
    writer.finish();
    tensors_.clear();
    unit_reports_ = 0;
  }

  void assemble(int64_t units) {
    std::vector<SafetensorsFile> done;
    for (int64_t unit = 0; unit < units; ++unit) done.emplace_back(unit_file(unit));
    std::vector<PlannedTensor> plan;
    const auto add_outer = [&](const TensorSpec& spec) {
      if (spec.layer < 0 && !quantized(spec)) plan.push_back({spec.name, DType::F16, spec.shape});
    };
    for (int64_t unit = 0; unit < units; ++unit) {
      for (const NamedTensor& tensor : done[at(unit)].tensors()) {
        plan.push_back({tensor.name, tensor.view.dtype, tensor.view.shape});
      }
    }
    for (const TensorSpec& spec : specs_) add_outer(spec);

    AtomicFolder folder(job_.out);
    CheckpointWriter writer(folder.temporary(), plan, job_.max_shard_bytes);
    for (const SafetensorsFile& file : done) {
      for (const NamedTensor& tensor : file.tensors()) {
        writer.write(std::span(tensor.view.data, tensor.view.size_bytes()));
        forget_mapped(tensor.view.data, tensor.view.size_bytes());
      }
    }
    for (const TensorSpec& spec : specs_) {
      if (spec.layer >= 0 || quantized(spec)) continue;
      if (spec.shape.rank() == 1) {
        const auto* norm = norm_field(weights_, spec);
        writer.write(
            half_tensor(spec.name, spec.shape, norm != nullptr ? *norm : weights_.lm_head.bias)
                .bytes);
        continue;
      }
      std::future<void> written;  // what came before, while the next rows are made
      for (int64_t row = 0; row < spec.shape[0]; row += kRowsCopied) {
        const int64_t count = std::min(kRowsCopied, spec.shape[0] - row);
        OwnedTensor rows =
            half_tensor(spec.name, Shape{count, spec.shape[1]}, reader_.rows(spec, row, count));
        if (written.valid()) written.get();
        written = std::async(std::launch::async,
                             [&writer, rows = std::move(rows)] { writer.write(rows.bytes); });
      }
      written.get();
      reader_.forget(spec);
    }
    writer.finish();
    if (job_.add_files) job_.add_files(folder.temporary());
    write_configs(folder.temporary());
    folder.commit();
  }

  void write_configs(const fs::path& folder) {
    const QuantizeSettings& s = job_.settings;
    nlohmann::ordered_json quantization = {
        {"bits", s.bits},
        {"group_size", s.group},
        {"damp_percent", s.damping},
        {"desc_act", s.act_order},
        {"static_groups", s.static_groups},
        {"sym", s.symmetric},
        {"true_sequential", true},
        {"model_name_or_path", nullptr},
        {"model_file_base_name", "model"},
        {"lm_head", quantized(specs_.back()) && specs_.back().role == Role::Head},
        {"quant_method", "gptq"}};
    // Matrices whose bits or groups are others, as GPTQModel's checkpoints name them.
    nlohmann::ordered_json dynamic = nlohmann::ordered_json::object();
    for (const MatrixReport& r : reports_) {
      const int64_t group = s.group < 0 ? r.cols : s.group;
      if (r.bits == s.bits && r.group == group) continue;
      std::string pattern = "+:^";
      for (const char c : r.module) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
      dynamic[pattern + "$"] = {{"bits", r.bits}, {"group_size", r.group}};
    }
    if (!dynamic.empty()) quantization["dynamic"] = dynamic;
    nlohmann::ordered_json config = Json::parse_file((job_.model / "config.json").string()).raw();
    config["torch_dtype"] = "float16";
    for (const char* flag : {"bf16", "fp32"}) {
      if (config.contains(flag)) config[flag] = false;
    }
    if (config.contains("fp16")) config["fp16"] = true;
    config["quantization_config"] = quantization;
    write_file(folder / "config.json", dump(config, 2) + "\n");
    write_file(folder / "quantize_config.json", dump(quantization, 2) + "\n");
  }

  const QuantizeJob& job_;
  ThreadPool& pool_;
  CpuTrainingBackend backend_;  // in float32, for what is solved
  Config config_;
  CpuTrainingBackend forward_;  // for the calibration text
  LoadedWeights loaded_;
  Weights weights_;  // whose blocks' matrices are exchanged for floats while they are at work
  MatrixReader reader_;
  fs::path partial_;
  std::vector<TensorSpec> specs_;
  std::vector<TensorSpec> outer_;            // to be quantized: a head, then an embedding
  std::map<std::string, BitChoice> chosen_;  // by module, for target_bits
  uint64_t done_ = 0, total_ = 0;
  std::string at_work_;               // for on_progress
  std::vector<OwnedTensor> tensors_;  // of the unit at work
  std::vector<MatrixReport> reports_;
  size_t unit_reports_ = 0;
};

}  // namespace

std::vector<MatrixReport> quantize_checkpoint(const QuantizeJob& job, ThreadPool& pool) {
  return Quantizer(job, pool).run();
}

std::vector<int32_t> calibration_samples(std::span<const int32_t> ids, int64_t samples,
                                         int64_t length, std::string_view source) {
  const auto total = static_cast<int64_t>(ids.size());
  if (total == 0) throw_bad_input(fmt::format("{}: the calibration text is empty", source));
  if (total < length) {
    throw_bad_input(fmt::format("{}: the calibration text has {} tokens, a sequence takes {}",
                                source, total, length),
                    "give more text, or a shorter --length");
  }
  if (std::all_of(ids.begin(), ids.end(), [&](int32_t id) { return id == ids[0]; })) {
    throw_bad_input(
        fmt::format("{}: the calibration text is one token, {}, over and over", source, ids[0]),
        "give text like what the model will read");
  }
  const int64_t count = std::min(samples, total / length);
  std::vector<int32_t> out;
  for (int64_t s = 0; s < count; ++s) {
    const int64_t begin = count == 1 ? 0 : (total - length) * s / (count - 1);
    out.insert(out.end(), ids.begin() + begin, ids.begin() + begin + length);
  }
  return out;
}

}  // namespace quern
