#include "cli/commands/convert_gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "cli/framework/command.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/thread_pool.h"
#include "formats/gguf_writer.h"
#include "formats/gptq.h"
#include "formats/tiktoken.h"
#include "formats/tokenizer_json.h"
#include "model/gguf_archs.h"
#include "model/gguf_config.h"
#include "model/gguf_names.h"
#include "model/relayout.h"
#include "text/chat_template.h"
#include "text/gguf_pre_rules.h"
#include "text/load.h"

namespace quern::cli {
namespace {

constexpr int64_t kWeightsAtOnce = 1 << 16;  // that a thread takes

// Ranks say which tokens there are, not what they were merged from: each one's parts are what
// merging by the ranks below its own leaves of its bytes.
void add_merges(const std::vector<std::string>& tokens, TokenizerJson& out) {
  std::unordered_map<std::string_view, size_t> ranks;
  for (size_t id = 0; id < tokens.size(); ++id) ranks.emplace(tokens[id], id);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string& token = tokens[id];
    if (token.size() < 2) continue;
    std::vector<std::string_view> parts;
    for (size_t i = 0; i < token.size(); ++i) parts.push_back(std::string_view(token).substr(i, 1));
    while (parts.size() > 2) {
      size_t best = id, where = parts.size();
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const std::string_view pair(parts[i].data(), parts[i].size() + parts[i + 1].size());
        const auto found = ranks.find(pair);
        if (found == ranks.end() || found->second >= best) continue;
        best = found->second;
        where = i;
      }
      if (where == parts.size()) break;
      parts[where] = {parts[where].data(), parts[where].size() + parts[where + 1].size()};
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(where) + 1);
    }
    if (parts.size() == 2) out.merges.emplace_back(parts[0], parts[1]);
  }
}

}  // namespace

TokenizerJson tokenizer_parts(const fs::path& model) {
  if (fs::exists(model / "tokenizer.json")) return read_tokenizer_json(model / "tokenizer.json");
  if (fs::exists(model / "vocab.json")) {
    return read_vocab_and_merges(model / "vocab.json", model / "merges.txt");
  }
  for (const auto& entry : fs::directory_iterator(model)) {
    if (entry.path().extension() != ".tiktoken") continue;
    TokenizerJson out;
    out.nfc = true;
    out.pattern = gguf_pre_rule("qwen2")->patterns[0];
    out.tokens = read_tiktoken(entry.path()).tokens;
    add_merges(out.tokens, out);
    const auto tokenizer = load_tokenizer(model);
    for (const SpecialToken& special : tokenizer->specials()) {
      out.added.push_back({special.id, special.name});
    }
    return out;
  }
  throw Error(Kind::Unsupported,
              model.string() + ": its tokenizer is not byte-level BPE, and is not written to GGUF");
}

namespace {

void add_tokenizer(GgufWriter& out, const fs::path& model, const Config& c) {
  if (!has_tokenizer(model)) {
    log::info(model.string() + ": has no tokenizer, so the GGUF file gets none");
    out.add_string("tokenizer.ggml.model", "none");  // llama.cpp asks for one
    return;
  }
  const TokenizerJson parts = tokenizer_parts(model);
  const auto count = static_cast<size_t>(c.vocab);
  std::vector<std::string> tokens(count);
  std::vector<int32_t> types(count, 5);  // unused
  for (size_t id = 0; id < count; ++id) {
    if (id < parts.tokens.size() && !parts.tokens[id].empty()) {
      tokens[id] = bytes_to_byte_level(parts.tokens[id]);
      types[id] = 1;
    } else {
      tokens[id] = fmt::format("[PAD{}]", id);
    }
  }
  std::optional<int64_t> end_of_text;
  bool chatml = false;
  for (const AddedToken& token : parts.added) {
    if (token.id >= c.vocab) continue;  // the embedding has no row for it
    tokens[static_cast<size_t>(token.id)] = token.content;
    types[static_cast<size_t>(token.id)] = token.special ? 3 : 4;
    if (token.content == "<|endoftext|>") end_of_text = token.id;
    chatml = chatml || token.content == "<|im_start|>";
  }
  std::vector<std::string> merges;
  for (const auto& [left, right] : parts.merges) {
    merges.push_back(bytes_to_byte_level(left) + " " + bytes_to_byte_level(right));
  }
  out.add_string("tokenizer.ggml.model", "gpt2");
  out.add_string("tokenizer.ggml.pre", "qwen2");
  out.add_strings("tokenizer.ggml.tokens", tokens);
  out.add_i32s("tokenizer.ggml.token_type", types);
  out.add_strings("tokenizer.ggml.merges", merges);
  const auto add_id = [&](const char* key, std::optional<int64_t> id) {
    if (id && *id < c.vocab) out.add_u32(key, static_cast<uint32_t>(*id));
  };
  add_id("tokenizer.ggml.bos_token_id", c.bos_id ? c.bos_id : end_of_text);
  const auto& ends = c.eos_ids;
  add_id("tokenizer.ggml.eos_token_id", ends.empty() ? end_of_text : ends[0]);
  if (ends.size() > 1) add_id("tokenizer.ggml.eot_token_id", ends[1]);
  out.add_bool("tokenizer.ggml.add_bos_token", false);
  // A model's own template, or that of the first Qwen releases, which have it in their program.
  std::string chat = find_chat_template(model).text;
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
  report_lost(path.string(), lost_in_gguf(c), lossy);
  const TensorStore store = TensorStore::open(model);
  GgufWriter out(path);
  add_gguf_config(out, c, model.filename().string());
  out.add_u32("general.quantization_version", 2);
  add_tokenizer(out, model, c);
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
  // Of experts, the first one's place is that of all: they lie one after the other in one tensor.
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
  ThreadPool pool;
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
