#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/function_ref.h"
#include "core/log.h"
#include "core/progress.h"
#include "formats/convert_floats.h"
#include "formats/gptq.h"
#include "formats/safetensors.h"
#include "model/adapter.h"
#include "model/adapter_base.h"
#include "model/families.h"
#include "model/gguf_names.h"
#include "model/pack_weights.h"
#include "model/packed_file.h"
#include "model/relayout.h"
#include "model/stored_tensors.h"
#include "model/weights.h"

namespace quern {
namespace {

// Checkpoints up to this size are searched for NaN and infinity when they are loaded; in larger
// ones they are looked for when a result is not finite.
constexpr uint64_t kSearchedBytes = uint64_t{256} << 20;

WeightFormat format_of(DType dtype, const std::string& where) {
  switch (dtype) {
    case DType::F32:
      return WeightFormat::F32;
    case DType::F16:
      return WeightFormat::F16;
    case DType::BF16:
      return WeightFormat::BF16;
    default:
      throw_bad_input(
          fmt::format("{} is of type {}, expected F32, F16 or BF16", where, name(dtype)));
  }
}

// Rows [rows, cols] of floats of a type, each divided by its length: a normalized head.
std::vector<std::byte> normalized_rows(const ConstTensorView& view, const std::string& where) {
  std::vector<float> values = to_floats(view, where);
  normalize_rows(values, static_cast<size_t>(view.shape[1]));
  std::vector<std::byte> out;
  encode_floats(values, view.dtype, out);
  return out;
}

// What older checkpoints keep beside the weights though it is computed: rotary frequencies, causal
// masks of four dims.
bool is_buffer(std::string_view name, const ConstTensorView& view) {
  return name.ends_with(".inv_freq") || name.ends_with("attention.masked_bias") ||
         name.ends_with("attn.masked_bias") ||
         (view.shape.rank() == 4 &&
          (name.ends_with("attn.bias") || name.ends_with("attention.bias")));
}

// Models that also see have another tower beside the language model.
bool is_of_vision(std::string_view name) {
  if (name.starts_with("model.")) name.remove_prefix(std::string_view("model.").size());
  return name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
}

}  // namespace

struct LoadedWeights::State {
  static Weight packed_weight(const PackedMatrix& matrix) {
    return {.format = WeightFormat::Packed,
            .rows = matrix.rows,
            .cols = matrix.cols,
            .packed = &matrix};
  }

  TensorStore store;
  std::vector<TensorStore> adapters;
  std::optional<GptqConfig> gptq;
  std::deque<GptqMatrix> matrices;  // deques: what points at their items stays valid
  std::deque<PackedMatrix> packed;
  std::vector<GgufMatrix> blocks;         // of a GGUF file: what is to be packed
  uint64_t packed_bytes = 0;              // of the file, in `packed`
  std::vector<std::string> unpacked;      // GPTQ matrices that have no packed form
  std::optional<PackedFile> kept;         // matrices that were packed before
  bool all_kept = true;                   // all of `packed` are from there
  std::vector<std::string> packed_names;  // of `packed`
  bool pack = true, float32 = false;
  std::vector<std::string> gguf_unused;
  std::deque<std::vector<std::byte>> made;  // parts of matrices that files have in another form
  ThreadPool* pool = nullptr;
  std::deque<std::vector<float>> floats;  // norms, biases, scaled LoRA matrices
  std::set<std::string, std::less<>> used;
  Weights weights;

  Weight matrix(const TensorSpec& spec);
  Weight keep_packed(const std::string& name, const PackedMatrix& shape,
                     FunctionRef<PackedMatrix()> pack_it);
  PackedFileId id() const;
  void write_packed(const fs::path& file) const;
  std::span<const float> vector(const TensorSpec& spec);
  std::string head_name() const;  // in the files, whether or not it is there
  Weight dense(const TensorStore& from, const TensorSpec& spec, const Config& layout,
               const std::string& name);
  void apply_adapter(const std::filesystem::path& folder);

  Config config;
  std::deque<std::vector<std::byte>> copies;  // of tensors that the file has in another order
};

Weight LoadedWeights::State::dense(const TensorStore& from, const TensorSpec& spec,
                                   const Config& layout, const std::string& name) {
  const ConstTensorView stored = checked_tensor(from, name, file_shape(spec, layout));
  const std::string where = from.file_of(name) + ": " + name;
  used.insert(name);
  const bool widened = float32 && format_of(stored.dtype, where) != WeightFormat::F32;
  ConstTensorView view = stored;
  if (widened) {
    floats.push_back(to_floats(stored, where));
    view = {DType::F32, stored.shape, reinterpret_cast<const std::byte*>(floats.back().data())};
  }
  Weight weight = {.format = format_of(view.dtype, where),
                   .rows = spec.shape[0],
                   .cols = spec.shape[1],
                   .data = view.data};
  if (spec.part == Part::LmHead && layout.head_normalized) {
    weight.data = copies.emplace_back(normalized_rows(view, where)).data();
  } else if (!in_file_order(spec, layout)) {
    std::vector<std::byte>& copy = copies.emplace_back(view.size_bytes());
    reorder_tensor(copy, {view.data, view.size_bytes()}, spec, layout, size_bytes(view.dtype),
                   TensorOrder::Ours);
    forget_mapped(stored.data, stored.size_bytes());
    weight.data = copy.data();
  }
  if (widened && weight.data != view.data) floats.pop_back();  // a copy took its place
  return weight;
}

Weight LoadedWeights::State::matrix(const TensorSpec& spec) {
  for (const GgufMatrix& source : blocks) {
    if (source.name != spec.name) continue;
    packed_bytes += source.bytes;
    return keep_packed(spec.name, shape_of_blocks(source), [&] {
      PackedMatrix matrix = pack_blocks(source, pool);
      forget_mapped(source.blocks, source.bytes);
      return matrix;
    });
  }
  if (!gptq || !store.find(spec.module + ".qweight")) {
    return dense(store, spec, config, stored_name(store, spec.name));
  }
  const int64_t out = spec.shape[0], in = spec.shape[1];
  GptqTensors tensors = read_gptq(store, spec.module, *gptq, in, out);
  if (const std::vector<int32_t> rows = file_rows(spec, config); !rows.empty()) {
    reorder_outputs(tensors, rows);
  }
  used.insert(tensors.names.begin(), tensors.names.end());
  const size_t made_before = made.size();
  for (std::vector<std::byte>& bytes : tensors.made) made.push_back(std::move(bytes));
  matrices.push_back({.qweight = reinterpret_cast<const uint32_t*>(tensors.qweight.data),
                      .qzeros = reinterpret_cast<const uint32_t*>(tensors.qzeros.data),
                      .scales = reinterpret_cast<const uint16_t*>(tensors.scales.data),
                      .g_idx = reinterpret_cast<const int32_t*>(tensors.g_idx.data),
                      .out = out,
                      .bits = tensors.bits,
                      .zero_shift = tensors.zero_shift});
  if (pack) {
    if (auto shape = shape_of_words(matrices.back(), in)) {
      const Weight kept_weight = keep_packed(spec.module, *shape, [&] {
        PackedMatrix matrix = pack_words(matrices.back(), std::move(*shape), pool);
        if (tensors.made.empty()) {
          for (const ConstTensorView& view : {tensors.qweight, tensors.qzeros, tensors.scales}) {
            forget_mapped(view.data, view.size_bytes());
          }
        }
        return matrix;
      });
      made.resize(made_before);
      matrices.pop_back();
      return kept_weight;
    }
    unpacked.push_back(spec.module);
  }
  return {.format = WeightFormat::Gptq, .rows = out, .cols = in, .gptq = &matrices.back()};
}

Weight LoadedWeights::State::keep_packed(const std::string& name, const PackedMatrix& shape,
                                         FunctionRef<PackedMatrix()> pack_it) {
  std::optional<PackedMatrix> found;
  if (kept) found = kept->find(name, shape);
  all_kept &= found.has_value();
  packed.push_back(found ? std::move(*found) : pack_it());
  packed_names.push_back(name);
  return packed_weight(packed.back());
}

PackedFileId LoadedWeights::State::id() const {
  std::set<fs::path> files;
  for (const std::string& name : store.names()) files.insert(store.file_of(name));
  if (is_gguf(store.source())) {
    for (const fs::path& file : GgufFile(store.source()).files()) files.insert(file);
  }
  return packed_file_id(std::vector<fs::path>(files.begin(), files.end()));
}

void LoadedWeights::State::write_packed(const fs::path& file) const {
  std::vector<PackedFile::Named> named;
  for (size_t i = 0; i < packed.size(); ++i) named.emplace_back(packed_names[i], &packed[i]);
  try {
    PackedFile::write(file, id(), named);
    log::info(fmt::format("{}: keeps the packed weights for the next start, {}", file.string(),
                          human_bytes(fs::file_size(file))));
  } catch (const Error& error) {
    log::warning(fmt::format("the packed weights are not kept: {}", error.what()));
  }
}

std::span<const float> LoadedWeights::State::vector(const TensorSpec& spec) {
  const std::string name = stored_name(store, spec.name);
  floats.push_back(tensor_floats(store, spec, config));
  used.insert(name);
  return floats.back();
}

std::string LoadedWeights::State::head_name() const {
  return stored_name(store, std::string(row_of(config.family).names.lm_head) + ".weight");
}

void LoadedWeights::State::apply_adapter(const std::filesystem::path& folder) {
  const TensorStore& tensors = adapters.emplace_back(open_adapter(folder));
  // An adapter is made for the family's own files, also where the model is a GGUF file.
  const Config layout = is_gguf(store.source()) ? family_layout(config) : config;
  const auto saved = [&](const TensorSpec& spec, const std::string& name) {
    const Weight full = dense(tensors, spec, layout, name);
    (spec.part == Part::Embedding ? weights.embedding : weights.lm_head.weight) = full;
  };
  for (const AdapterUpdate& one :
       read_adapter(folder, tensors, weights, config, layout, floats, saved)) {
    if (!one.linear->lora.a.empty()) {
      throw Error(Kind::Unsupported, fmt::format("two adapters change {}", one.module),
                  "merge one of them into the model first");
    }
    one.linear->lora = one.update;
  }
}

LoadedWeights::LoadedWeights(std::unique_ptr<State> state) : state_(std::move(state)) {}
LoadedWeights::LoadedWeights(LoadedWeights&&) noexcept = default;
LoadedWeights& LoadedWeights::operator=(LoadedWeights&&) noexcept = default;
LoadedWeights::~LoadedWeights() = default;

LoadedWeights LoadedWeights::load(const std::filesystem::path& folder, const Config& config,
                                  const LoadOptions& options) {
  auto state = std::make_unique<State>();
  State& s = *state;
  s.config = config;
  s.float32 = options.float32;
  s.pack = options.pack && !options.float32;
  s.pool = options.pool;
  if (is_gguf(folder)) {
    s.store = gguf_tensors(folder, config,
                           {.matrices = s.pack ? &s.blocks : nullptr,
                            .blocks = s.float32 ? DType::F32 : DType::F16,
                            .unused = &s.gguf_unused});
  } else {
    s.store = TensorStore::open(folder);
    s.gptq = read_gptq_config(folder);
  }
  const fs::path packed_path = PackedFile::path_of(folder);
  if (options.pack_cache && s.pack) s.kept = PackedFile::open(packed_path, s.id(), s.pool);
  s.weights = bind_weights(
      config, {.matrix = [&](const TensorSpec& spec) { return s.matrix(spec); },
               .vector =
                   [&](const TensorSpec& spec) {
                     // A GPTQ file without biases is one of a model that has none.
                     if (spec.role == Role::Bias && s.gptq && !s.store.find(spec.name)) {
                       return std::span<const float>{};
                     }
                     return s.vector(spec);
                   }});
  if (options.pack_cache && !s.all_kept) s.write_packed(packed_path);
  if (!s.unpacked.empty()) {
    log::info(
        fmt::format("{}: {} matrices ({}, ...) have scattered groups, or none of 32 inputs or a "
                    "multiple: they are computed in float, slowly",
                    s.store.source().string(), s.unpacked.size(), s.unpacked[0]));
  }
  if (s.gptq) {
    // GPTQ files carry a bias for every matrix, also where the float model has none.
    for (TensorSpec bias : tensor_specs(config)) {
      if (bias.role != Role::Matrix || !s.store.find(bias.module + ".bias")) continue;
      bias.name = bias.module + ".bias";
      bias.shape = Shape{bias.shape[0]};
      bias.role = Role::Bias;
      bind_vector(s.weights, bias, config, s.vector(bias));
    }
  }
  // Many tied checkpoints hold the head all the same; a copy of the embedding says nothing new.
  if (config.tied && !is_gguf(folder)) {
    const std::string name = s.head_name();
    const auto head = s.store.find(name),
               table = s.store.find(stored_name(s.store, tensor_specs(config)[0].name));
    if (head && table && head->dtype == table->dtype && head->shape == table->shape &&
        std::memcmp(head->data, table->data, head->size_bytes()) == 0) {
      s.used.insert(name);
    }
  }
  for (const auto& adapter : options.adapters) {
    warn_of_other_base(adapter, folder, options.strict);
    s.apply_adapter(adapter);
  }
  LoadedWeights loaded(std::move(state));
  if (s.store.total_bytes() <= kSearchedBytes) loaded.check_finite();
  loaded.report_unused(config, options.strict);
  return loaded;
}

const Weights& LoadedWeights::weights() const noexcept { return state_->weights; }

uint64_t LoadedWeights::file_bytes() const noexcept {
  return state_->store.total_bytes() + state_->packed_bytes;
}

std::string LoadedWeights::description() const {
  if (state_->gptq) {
    if (state_->gptq->mixed) return "GPTQ, bits by matrix";
    const bool awq = state_->gptq->layout == GptqLayout::AwqGemm;
    return fmt::format("{} int{}, {}", awq ? "AWQ" : "GPTQ", state_->gptq->bits,
                       state_->gptq->group_size < 0
                           ? std::string("one group")
                           : fmt::format("groups of {}", state_->gptq->group_size));
  }
  const bool gguf = is_gguf(state_->store.source());
  if (!state_->blocks.empty()) {
    std::set<std::string_view> types;
    for (const GgufMatrix& source : state_->blocks) types.insert(source.type_name);
    return fmt::format("GGUF {}", fmt::join(types, " and "));
  }
  switch (state_->weights.layers[0].q.weight.format) {
    case WeightFormat::F16:
      return gguf ? "GGUF, as fp16" : "fp16";
    case WeightFormat::BF16:
      return gguf ? "GGUF, bf16" : state_->store.has_fp8() ? "fp8, as bf16" : "bf16";
    default:
      return gguf ? "GGUF, fp32" : "fp32";
  }
}

std::vector<std::string> LoadedWeights::unused() const {
  std::vector<std::string> names;
  for (const std::string& name : state_->store.names()) {
    if (state_->used.contains(name) || is_of_vision(name)) continue;
    if (is_buffer(name, state_->store.at(name))) continue;
    names.push_back(name);
  }
  names.insert(names.end(), state_->gguf_unused.begin(), state_->gguf_unused.end());
  return names;
}

void LoadedWeights::report_unused(const Config& config, bool strict) const {
  const std::vector<std::string> names = unused();
  const auto seeing = std::ranges::count_if(state_->store.names(), is_of_vision);
  if (seeing > 0) {
    log::info(fmt::format("{}: text only: {} tensors of its vision tower are left out",
                          state_->store.source().string(), seeing));
  }
  if (names.empty()) return;
  constexpr size_t kShown = 20;
  std::string list =
      fmt::format("{}", fmt::join(std::span(names).first(std::min(names.size(), kShown)), ", "));
  if (names.size() > kShown) list += fmt::format(" and {} more", names.size() - kShown);
  const bool head = config.tied && std::ranges::find(names, state_->head_name()) != names.end();
  const std::string line =
      fmt::format("{}: the model has no use for {}{}", state_->store.source().string(), list,
                  head ? "; tie_word_embeddings makes the embedding the head" : "");
  if (strict) throw_bad_input(line, "without --strict this is a warning");
  log::warning(line);
}

void LoadedWeights::check_finite() const {
  for (const NonFinite& bad : find_nonfinite(state_->store)) {
    throw_bad_input(fmt::format("{}: {} has {} values that are NaN or infinite",
                                state_->store.file_of(bad.name), bad.name, bad.count),
                    "the file is damaged, or its training went wrong");
  }
}

}  // namespace quern
