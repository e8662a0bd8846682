#include "cli/commands/convert_gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>

#include "cli/framework/command.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "formats/gguf_sampling.h"
#include "formats/gguf_writer.h"
#include "formats/gptq.h"
#include "model/gguf_archs.h"
#include "model/gguf_config.h"
#include "model/gguf_names.h"
#include "model/relayout.h"
#include "text/chat_template.h"
#include "text/gguf_tokenizer_writer.h"
#include "text/load.h"

namespace quern::cli {
namespace {

constexpr int64_t kWeightsAtOnce = 1 << 16;  // that a thread takes

// The model's tokenizer, or nothing where it has none or, with `lossy`, one that GGUF has no model
// for.
std::optional<GgufTokenizer> find_tokenizer(const fs::path& model, bool lossy) {
  if (!has_tokenizer(model)) {
    log::info(model.string() + ": has no tokenizer, so the GGUF file gets none");
    return std::nullopt;
  }
  try {
    return GgufTokenizer(load_tokenizer_spec(model));
  } catch (const Error& error) {
    if (!lossy || error.kind() != Kind::Unsupported) throw;
    log::warning(std::string(error.what()) + "; the GGUF file gets no tokenizer");
    return std::nullopt;
  }
}

// A model's own template, or that of the first Qwen releases, which have it in their program.
void add_chat_template(GgufWriter& out, const fs::path& model, const TokenizerSpec& tokenizer) {
  std::string chat = find_chat_template(model).text;
  const bool chatml = std::ranges::any_of(
      tokenizer.added, [](const AddedToken& token) { return token.content == "<|im_start|>"; });
  if (chat.empty() && chatml) chat = builtin_chat_template("qwen");
  if (!chat.empty()) out.add_string("tokenizer.chat_template", chat);
}

}  // namespace

void report_lost(const std::string& where, const std::vector<std::string>& lost, bool lossy) {
  if (lost.empty()) return;
  const std::string line = fmt::format("{} would lose {}", where, fmt::join(lost, ", "));
  if (!lossy) throw Error(Kind::Unsupported, line, "--lossy writes it all the same");
  log::warning(line + ": the result computes something else where they act");
}

void convert_to_gguf(const fs::path& model, const fs::path& path, const std::string& type,
                     bool lossy) {
  const auto wanted = gguf_block_named(type);
  const bool writable =
      wanted && (wanted->weights == 1 || wanted->type == GgufType::Q8_0 ||
                 wanted->type == GgufType::Q4_0 || wanted->type == GgufType::Q4_K);
  if (!writable) {
    throw Error(Kind::Misused, fmt::format("--type is '{}'", printable(type, 40)),
                "expected F32, F16, BF16, Q8_0, Q4_0 or Q4_K");
  }
  if (!is_gguf(path)) {
    throw Error(Kind::Misused, path.string() + ": the name of a GGUF file ends in .gguf");
  }
  if (!fs::is_directory(model)) throw_bad_input(model.string() + ": is not a checkpoint's folder");
  if (read_gptq_config(model)) {
    throw_bad_input(model.string() + ": is quantized already", "convert the float checkpoint");
  }
  const Config c = load_config(model);
  std::vector<std::string> lost = lost_in_gguf(c);
  const std::optional<GgufTokenizer> tokenizer = find_tokenizer(model, lossy);
  if (tokenizer) lost.insert(lost.end(), tokenizer->lost().begin(), tokenizer->lost().end());
  report_lost(path.string(), lost, lossy);
  if (tokenizer && !tokenizer->overlap().empty()) {
    log::warning(fmt::format("{}: a text that runs the tokens {} together is cut in another order",
                             path.string(), tokenizer->overlap()));
  }
  const TensorStore store = TensorStore::open(model);
  GgufWriter out(path);
  add_gguf_config(out, c, model.filename().string());
  out.add_u32("general.quantization_version", 2);
  add_gguf_sampling(out, read_generation_config(model));
  if (tokenizer) {
    tokenizer->write(out, c.vocab, c.bos_id, c.eos_ids);
    add_chat_template(out, model, tokenizer->spec());
  } else {
    out.add_string("tokenizer.ggml.model", "none");  // llama.cpp asks for one
  }
  const auto type_of = [&](const TensorSpec& spec) {
    const bool small = spec.shape.rank() < 2 || spec.part == Part::Router ||
                       spec.part == Part::SharedRouter || spec.part == Part::Positions;
    if (small) return *gguf_block_named("F32");
    const bool outer = spec.role == Role::Embedding || spec.role == Role::Head;
    const bool four_bits = wanted->type == GgufType::Q4_0 || wanted->type == GgufType::Q4_K;
    if (!(four_bits && outer) && spec.shape[1] % wanted->weights == 0) return *wanted;
    return *gguf_block_named(four_bits && spec.shape[1] % 32 == 0 ? "Q8_0" : "F16");
  };
  const Config layout = gguf_layout(c);
  const Relayout tensors(store, c, layout);
  // All experts' matrices of a layer lie side by side in one tensor, at the first one's place.
  std::vector<std::vector<TensorSpec>> groups;
  std::map<std::string, size_t, std::less<>> group_of;
  uint64_t total = 0, done = 0;
  for (const TensorSpec& spec : tensor_specs(layout)) {
    const auto [group, first] = group_of.emplace(gguf_name(spec, layout), groups.size());
    if (first) groups.emplace_back();
    groups[group->second].push_back(spec);
    total += static_cast<uint64_t>(spec.shape.count());
  }
  for (const std::vector<TensorSpec>& group : groups) {
    const TensorSpec& first = group[0];
    Shape shape = first.shape;
    if (first.part == Part::SharedRouter) shape = {first.shape[1]};
    if (group.size() > 1) shape = {std::ssize(group), first.shape[0], first.shape[1]};
    out.add_tensor(gguf_name(first, layout), type_of(first), shape);
  }
  const std::vector<GgufFactors> factors = gguf_rope_factors(c);
  for (const GgufFactors& one : factors) {
    out.add_tensor(one.name, *gguf_block_named("F32"), {std::ssize(one.values)});
  }
  const InterruptScope scope;
  ThreadPool pool(globals().threads);
  Progress progress("writing " + path.string(), total, "weights");
  out.begin();
  for (const std::vector<TensorSpec>& group : groups) {
    std::vector<std::byte> blocks;
    for (const TensorSpec& spec : group) {
      check_interrupted();
      std::vector<float> values = tensors.floats(spec);
      if (const std::vector<int32_t> order = gguf_rows(spec, layout); !order.empty()) {
        const std::vector<float> ours = values;
        const auto width = values.size() / order.size();
        for (size_t row = 0; row < order.size(); ++row) {
          std::copy_n(
              ours.begin() + static_cast<ptrdiff_t>(row * width), width,
              values.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(order[row]) * width));
        }
      }
      const GgufBlock block = type_of(spec);
      const size_t begin = blocks.size();
      blocks.resize(begin + static_cast<size_t>(spec.shape.count() / block.weights * block.bytes));
      pool.parallel_for(
          spec.shape.count() / block.weights, kWeightsAtOnce / block.weights,
          [&](int64_t first, int64_t end, int) {
            quantize_blocks(
                block.type,
                std::span(values).subspan(static_cast<size_t>(first * block.weights),
                                          static_cast<size_t>((end - first) * block.weights)),
                blocks.data() + begin + static_cast<size_t>(first * block.bytes));
          });
      done += values.size();
      progress.update(done);
    }
    out.write(blocks);
  }
  for (const GgufFactors& one : factors) out.write(std::as_bytes(std::span(one.values)));
  out.finish();
  progress.finish();
  print(fmt::format("{}: {} tensors, {}\n", path.string(), groups.size(),
                    human_bytes(fs::file_size(path))));
}

}  // namespace quern::cli
