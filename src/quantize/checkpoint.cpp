#include "quantize/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/log.h"
#include "formats/gptq.h"
#include "quantize/calibration.h"
#include "quantize/packing.h"

namespace quern {
namespace {

constexpr int64_t kRowsAtOnce = 4096;  // of a matrix that is only rewritten

size_t at(int64_t i) { return static_cast<size_t>(i); }

// Rows of a dense weight as floats.
void copy_floats(const Weight& w, int64_t begin, int64_t count, float* out) {
  const int64_t first = begin * w.cols, size = count * w.cols;
  switch (w.format) {
    case WeightFormat::F32:
      std::memcpy(out, w.data + first * 4, at(size) * 4);
      return;
    case WeightFormat::F16:
    case WeightFormat::BF16: {
      const auto* half = reinterpret_cast<const uint16_t*>(w.data) + first;
      const bool bf16 = w.format == WeightFormat::BF16;
      for (int64_t i = 0; i < size; ++i) out[i] = bf16 ? from_bf16(half[i]) : from_f16(half[i]);
      return;
    }
    case WeightFormat::Gptq:
    case WeightFormat::Packed:
      break;
  }
  throw Error(Kind::Unsupported, "a weight is packed where floats are expected");
}

class Quantizer {
 public:
  Quantizer(const QuantizeJob& job, ThreadPool& pool)
      : job_(job),
        pool_(pool),
        backend_(pool),
        config_(load_config(job.model)),
        loaded_([&] {
          if (const auto already = read_gptq_config(job.model)) {
            throw_bad_input(fmt::format("{}: is quantized already (GPTQ int{})", job.model.string(),
                                        already->bits),
                            "start from the float checkpoint");
          }
          return LoadedWeights::load(job.model, config_, {.pack = false});
        }()),
        weights_(loaded_.weights()),
        partial_(job.out.string() + ".quantizing"),
        specs_(tensor_specs(config_)) {
    for (const TensorSpec& spec : specs_) {
      if (quantized(spec)) total_ += static_cast<uint64_t>(spec.shape.count());
    }
    if (total_ == 0) {
      throw Error(Kind::Misused, "--keep leaves no matrix to quantize");
    }
  }

  std::vector<MatrixReport> run() {
    open_partial();
    const bool head = std::any_of(specs_.begin(), specs_.end(), [&](const TensorSpec& spec) {
      return spec.role == Role::Head && quantized(spec);
    });
    const int64_t units = config_.layers + (head ? 1 : 0);
    int64_t next = 0;
    while (next < units && fs::exists(unit_file(next))) ++next;
    if (next > 0) {
      log::info(
          fmt::format("{}: {} of {} blocks are done, going on", partial_.string(), next, units));
    }
    for (int64_t unit = 0; unit < next; ++unit) recall(unit);
    Calibration calibration(backend_, config_, std::max<int64_t>(job_.length, 1));
    if (job_.gptq && next < units) {
      if (next == 0) {
        calibration.embed(weights_.embedding, job_.calibration);
      } else {
        recall_stream(calibration.stream(), next);
      }
    }
    for (int64_t unit = next; unit < units; ++unit) {
      if (unit < config_.layers) {
        quantize_block(unit, calibration);
        const bool more = unit + 1 < units;
        if (job_.gptq && more) {
          AtomicFile file(stream_file(unit + 1));
          file.write(std::as_bytes(std::span(std::as_const(calibration.stream()))));
          file.commit();
        }
      } else {
        quantize_head(calibration);
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
    return (spec.role == Role::Matrix || spec.role == Role::Head) && !kept(spec);
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
        {"version", 1},
        {"files", files},
        {"gptq", job_.gptq},
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
      MatrixReport report = {row.at("module").string(), row.at("rows").integer(),
                             row.at("cols").integer(), row.at("weight_error").number()};
      if (row.has("output_error")) report.output_error = row.at("output_error").number();
      report.damping = row.at("damping").number();
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

  // A matrix as it is in the checkpoint, out of the parts that the forward pass has it in.
  std::vector<float> floats_of(const TensorSpec& spec) {
    std::vector<float> out(at(spec.shape.count()));
    for (const LinearSlice& slice : linears_of(weights_, spec, config_)) {
      copy_floats(slice.linear->weight, 0, slice.rows,
                  out.data() + slice.first_row * spec.shape[1]);
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (std::isfinite(out[i])) continue;
      throw_bad_input(
          fmt::format("{}: {} has a value that is NaN or infinite, at [{}, {}]",
                      job_.model.string(), spec.name, i / at(spec.shape[1]), i % at(spec.shape[1])),
          "the file is damaged, or its training went wrong");
    }
    return out;
  }

  // Quantizes one matrix; `values` becomes what the quantized one computes with.
  void quantize_matrix(const TensorSpec& spec, std::vector<float>& values,
                       const std::vector<double>* hessian) {
    if (job_.on_progress) job_.on_progress(done_, total_, spec.module);
    const int64_t rows = spec.shape[0];
    const QuantizedMatrix m =
        hessian != nullptr
            ? gptq(backend_, pool_, values, rows, *hessian, job_.settings, spec.module)
            : round_to_nearest(pool_, values, rows, job_.settings, spec.module);
    MatrixReport report = {spec.module, rows, spec.shape[1]};
    report.damping = m.damping;
    if (job_.measure && hessian != nullptr) {
      report.output_error = output_error(backend_, values, m, *hessian);
    }
    std::vector<float> back = m.dequantized();
    double lost = 0, all = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const double w = values[i], d = w - static_cast<double>(back[i]);
      lost += d * d;
      all += w * w;
    }
    report.weight_error = all > 0 ? lost / all : 0;
    std::copy(back.begin(), back.end(), values.begin());
    for (OwnedTensor& tensor : pack_gptq(m, job_.settings.bits, spec.module)) {
      tensors_.push_back(std::move(tensor));
    }
    // The layout has a bias for every quantized matrix.
    std::vector<float> bias(at(rows));
    for (const LinearSlice& slice : linears_of(weights_, spec, config_)) {
      std::copy(slice.linear->bias.begin(), slice.linear->bias.end(),
                bias.begin() + slice.first_row);
    }
    if (spec.role == Role::Matrix) {
      tensors_.push_back(half_tensor(spec.module + ".bias", Shape{rows}, bias));
    }
    done_ += static_cast<uint64_t>(spec.shape.count());
    reports_.push_back(std::move(report));
    unit_reports_ += 1;
  }

  void quantize_block(int64_t layer, Calibration& calibration) {
    Layer& live = weights_.layers[at(layer)];
    std::vector<TensorSpec> matrices;
    std::vector<std::vector<float>> values;
    for (const TensorSpec& spec : specs_) {
      if (spec.layer != layer) continue;
      if (spec.role == Role::Matrix) {
        matrices.push_back(spec);
        values.push_back(floats_of(spec));
      } else if (spec.role == Role::Norm) {
        const std::span<const float> norm = spec.part == Part::Norm1   ? live.norm_1
                                            : spec.part == Part::Norm2 ? live.norm_2
                                            : spec.part == Part::QNorm ? live.q_norm
                                                                       : live.k_norm;
        tensors_.push_back(half_tensor(spec.name, spec.shape, norm));
      } else if (spec.role == Role::Bias) {
        TensorSpec matrix = spec;
        matrix.role = Role::Matrix;
        if (kept(matrix)) tensors_.push_back(half_tensor(spec.name, spec.shape, bias_of(spec)));
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
    const auto stage = [&](std::initializer_list<Part> parts, auto&& inputs) {
      std::optional<std::vector<double>> hessian;
      if (job_.gptq) hessian = inputs().take();
      for (size_t i = 0; i < matrices.size(); ++i) {
        if (std::find(parts.begin(), parts.end(), matrices[i].part) == parts.end()) continue;
        if (quantized(matrices[i])) {
          quantize_matrix(matrices[i], values[i], hessian ? &*hessian : nullptr);
        } else {
          tensors_.push_back(half_tensor(matrices[i].name, matrices[i].shape, values[i]));
        }
      }
    };
    stage({Part::Qkv, Part::Q, Part::K, Part::V}, [&] { return calibration.qkv_inputs(live); });
    stage({Part::AttnOut}, [&] { return calibration.attn_out_inputs(live, layer); });
    stage({Part::Up, Part::Gate}, [&] { return calibration.up_gate_inputs(live); });
    stage({Part::Down}, [&] { return calibration.down_inputs(live); });
    if (job_.gptq) calibration.finish(live);
    live = loaded_.weights().layers[at(layer)];  // the floats end with this block
  }

  std::vector<float> bias_of(const TensorSpec& spec) {
    std::vector<float> bias(at(spec.shape[0]));
    for (const LinearSlice& slice : linears_of(weights_, spec, config_)) {
      std::copy(slice.linear->bias.begin(), slice.linear->bias.end(),
                bias.begin() + slice.first_row);
    }
    return bias;
  }

  void quantize_head(Calibration& calibration) {
    const TensorSpec& spec = specs_.back();
    std::vector<float> values = floats_of(spec);
    std::optional<std::vector<double>> hessian;
    if (job_.gptq) hessian = calibration.head_inputs(weights_.final_norm).take();
    quantize_matrix(spec, values, hessian ? &*hessian : nullptr);
  }

  // The report first: a block counts as done when its tensors are there.
  void save(int64_t unit) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (size_t i = reports_.size() - unit_reports_; i < reports_.size(); ++i) {
      const MatrixReport& r = reports_[i];
      rows.push_back({{"module", r.module},
                      {"rows", r.rows},
                      {"cols", r.cols},
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
      if (spec.layer < 0 && !(spec.role == Role::Head && quantized(spec))) {
        plan.push_back({spec.name, DType::F16, spec.shape});
      }
    };
    const auto add_unit = [&](int64_t unit) {
      for (const NamedTensor& tensor : done[at(unit)].tensors()) {
        plan.push_back({tensor.name, tensor.view.dtype, tensor.view.shape});
      }
    };
    add_outer(specs_.front());
    for (int64_t unit = 0; unit < units; ++unit) add_unit(unit);
    for (size_t i = 1; i < specs_.size(); ++i) add_outer(specs_[i]);

    AtomicFolder folder(job_.out);
    CheckpointWriter writer(folder.temporary(), plan, job_.max_shard_bytes);
    const auto write_outer = [&](const TensorSpec& spec) {
      if (spec.layer >= 0 || (spec.role == Role::Head && quantized(spec))) return;
      if (spec.role == Role::Norm) {
        writer.write(half_tensor(spec.name, spec.shape, weights_.final_norm).bytes);
        return;
      }
      const Weight& w = spec.role == Role::Embedding ? weights_.embedding : weights_.lm_head.weight;
      std::vector<float> values;
      for (int64_t row = 0; row < w.rows; row += kRowsAtOnce) {
        const int64_t count = std::min(kRowsAtOnce, w.rows - row);
        values.resize(at(count * w.cols));
        copy_floats(w, row, count, values.data());
        writer.write(half_tensor(spec.name, Shape{count, w.cols}, values).bytes);
      }
    };
    write_outer(specs_.front());
    for (const SafetensorsFile& file : done) {
      for (const NamedTensor& tensor : file.tensors()) {
        writer.write(std::span(tensor.view.data, tensor.view.size_bytes()));
      }
    }
    for (size_t i = 1; i < specs_.size(); ++i) write_outer(specs_[i]);
    writer.finish();
    if (job_.add_files) job_.add_files(folder.temporary());
    write_configs(folder.temporary());
    folder.commit();
  }

  void write_configs(const fs::path& folder) {
    const QuantizeSettings& s = job_.settings;
    const nlohmann::ordered_json quantization = {
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
  CpuTrainingBackend backend_;
  Config config_;
  LoadedWeights loaded_;
  Weights weights_;  // whose blocks' matrices are exchanged for floats while they are at work
  fs::path partial_;
  std::vector<TensorSpec> specs_;
  uint64_t done_ = 0, total_ = 0;
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
