#include "generate/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "formats/gguf.h"
#include "text/chat_template.h"
#include "text/chatml.h"

namespace quern {
namespace {

constexpr int64_t kHalfPrecisionFrom = 1'000'000'000;  // parameters

}  // namespace

uint64_t available_memory() noexcept {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("MemAvailable:")) {
      return std::strtoull(line.c_str() + 13, nullptr, 10) * 1024;
    }
  }
  return ~uint64_t{0};
}

DType parse_kv_type(std::string_view name, const Config& config) {
  if (name == "auto") {
    return count_parameters(config).total >= kHalfPrecisionFrom ? DType::F16 : DType::F32;
  }
  if (name == "int8") return DType::U8;
  if (name == "int8-token") return DType::I8;
  const auto dtype = dtype_from_user(name);
  if (dtype && (*dtype == DType::F32 || *dtype == DType::F16 || *dtype == DType::BF16)) {
    return *dtype;
  }
  throw Error(Kind::Misused, fmt::format("the KV cache type is '{}'", printable(name, 40)),
              "expected auto, fp32, fp16, bf16, int8 or int8-token");
}

Model::Model(const fs::path& folder, const ModelOptions& options)
    : folder_(folder),
      pool_(options.threads),
      backend_(pool_),
      config_([&] {
        if (!fs::exists(folder)) {
          throw_bad_input(folder.string() + ": there is no such folder",
                          "name the folder of a checkpoint, or a GGUF file");
        }
        Config config = load_config(folder);
        if (options.dynamic_ntk) config.dynamic_ntk = *options.dynamic_ntk;
        if (options.logn) config.logn = *options.logn;
        if (!options.layer_windows.empty()) {
          config.windows = parse_windows(options.layer_windows, config.layers);
        }
        return config;
      }()),
      weights_(LoadedWeights::load(folder, config_,
                                   {.adapters = options.adapters,
                                    .pool = &pool_,
                                    .pack_cache = options.pack_cache,
                                    .float32 = options.float32,
                                    .strict = options.strict})),
      generation_(read_generation_config(folder)) {
  if (quern::has_tokenizer(folder)) {
    try {
      tokenizer_ = load_tokenizer(folder, options.tokenizer);
    } catch (const Error& error) {
      if (error.kind() != Kind::Unsupported) throw;
      no_tokenizer_ = error;  // the model still runs by ids
      log::warning(error.line());
    }
  }
  if (tokenizer_ != nullptr) find_chat(options.chat_template);
  engine_.kv_type = options.float32 && options.kv_cache == "auto"
                        ? DType::F32
                        : parse_kv_type(options.kv_cache, config_);
  engine_.context = options.context > 0 ? options.context : config_.max_context;
  engine_.rules = {config_.dynamic_ntk, config_.logn};
  if (config_.learned_positions > 0 && engine_.context > config_.learned_positions) {
    throw Error(Kind::Misused,
                fmt::format("{}: a context of {} tokens goes past its table of {} positions",
                            folder.string(), engine_.context, config_.learned_positions),
                "the model has no embedding for what lies behind; use a shorter --context");
  }
  // The weights are mapped and can be dropped and read again; the cache cannot.
  const uint64_t per_token = KvCache::bytes_per_token(config_, engine_.kv_type);
  const uint64_t cache = per_token * static_cast<uint64_t>(engine_.context);
  const uint64_t available = available_memory();
  if (options.context > 0 && cache > available) {
    throw Error(Kind::NoResources,
                fmt::format("a context of {} tokens needs {} of KV cache, {} of memory are free",
                            engine_.context, human_bytes(cache), human_bytes(available)),
                "use a shorter --context or a smaller --kv-cache type");
  }
}

void Model::find_chat(const std::string& name) {
  try {
    if (!name.empty()) {
      chat_ = std::make_unique<TemplatedChat>(*tokenizer_, named_chat_template(name, folder_));
      return;
    }
    const bool chatml = !is_gguf(folder_) && supports_chatml(*tokenizer_);
    if (chatml && generation_.chat_format == "chatml") {
      chat_ = std::make_unique<ChatMl>(*tokenizer_);
      return;
    }
    ChatTemplateText own = find_chat_template(folder_);
    if (!own.text.empty()) {
      chat_ = std::make_unique<TemplatedChat>(*tokenizer_, std::move(own));
    } else if (chatml && generation_.chat_format != "raw") {
      chat_ = std::make_unique<ChatMl>(*tokenizer_);
    }
  } catch (const Error& failure) {
    // A template that was asked for fails at once; the model's own matters to chats alone.
    if (!name.empty()) throw;
    chat_failure_ = failure;
  }
}

const Tokenizer& Model::tokenizer() const {
  if (tokenizer_ != nullptr) return *tokenizer_;
  if (no_tokenizer_) throw Error(*no_tokenizer_);
  load_tokenizer(folder_);  // says what it looked for
  throw_bad_input(folder_.string() + ": has no tokenizer");
}

SamplingOptions Model::default_sampling() const {
  const GenerationConfig& g = generation_;
  SamplingOptions s;
  s.greedy = g.do_sample.has_value() && !*g.do_sample;
  s.temperature = g.temperature.value_or(s.temperature);
  s.top_k = g.top_k.value_or(s.top_k);
  s.top_p = g.top_p.value_or(s.top_p);
  s.min_p = g.min_p.value_or(s.min_p);
  s.typical_p = g.typical_p.value_or(s.typical_p);
  s.repetition_penalty = g.repetition_penalty.value_or(s.repetition_penalty);
  s.no_repeat_ngram = g.no_repeat_ngram_size.value_or(s.no_repeat_ngram);
  return s;
}

StopRules Model::default_stop() const {
  StopRules stop;
  const auto add = [&](int64_t id) {
    const auto token = static_cast<TokenId>(id);
    if (std::find(stop.ids.begin(), stop.ids.end(), token) == stop.ids.end()) {
      stop.ids.push_back(token);
    }
  };
  for (const int64_t id : generation_.eos_ids) add(id);
  if (stop.ids.empty()) {
    for (const int64_t id : config_.eos_ids) add(id);
  }
  if (tokenizer_ != nullptr) {
    if (stop.ids.empty() && tokenizer_->eos()) add(*tokenizer_->eos());
    if (chat_ != nullptr) {
      for (const TokenId id : chat_->turn_ends()) add(id);
    }
    if (supports_chatml(*tokenizer_)) {
      for (const char* name : {"<|im_end|>", "<|im_start|>", "<|endoftext|>"}) {
        if (const auto id = tokenizer_->special(name)) add(*id);
      }
    }
  }
  for (const auto& sequence : generation_.stop_words_ids) {
    if (sequence.size() == 1) {
      add(sequence[0]);
    } else {
      stop.sequences.emplace_back(sequence.begin(), sequence.end());
    }
  }
  return stop;
}

const ChatFormat& Model::chat() const {
  if (chat_ != nullptr) return *chat_;
  tokenizer();
  if (chat_failure_) throw Error(*chat_failure_);
  throw_bad_input(folder_.string() + ": has no chat template",
                  fmt::format("name its format with --chat-template: {}, or a Jinja file",
                              fmt::join(builtin_chat_templates(), ", ")));
}

std::vector<TokenId> Model::raw_prompt(std::string_view text) const {
  std::vector<TokenId> ids = tokenizer().encode_whole(text, SpecialPolicy::all());
  if (!ids.empty()) return ids;
  const auto begin = tokenizer().eos();  // Qwen's <|endoftext|> stands between documents
  if (!begin) throw_bad_input("the prompt is empty");
  return {*begin};
}

void Model::explain_nonfinite() const {
  weights_.check_finite();
  throw Error(Kind::Failed, folder_.string() + ": the model's logits are not finite",
              "all its weights are, so its numbers overflow on this input");
}

}  // namespace quern
