// The data, its look-up, and the steps that it stands for.
#include "text/gguf_pre_rules.h"

#include <algorithm>
#include <iterator>

#include "text/splitter.h"

namespace quern {
namespace {

using Text = std::string_view;

// Patterns that several rules have; the first three are splitter.h's, which has fast ways for them.
constexpr Text kGpt2Text =
    R"x('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)x";
constexpr Text kQwenText = R"x((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)x"
                           R"x( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)x";
constexpr Text kLlama3Text =
    R"x((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)x"
    R"x( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)x";
constexpr Text kO200k =
    R"x([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|)x"
    R"x('t|'re|'ve|'m|'ll|'d)?|)x"
    R"x([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|)x"
    R"x('t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|)x"
    R"x(\s+)x";

constexpr Text kDefault[] = {R"x([\p{P}\$\+<=>\^~\|]+)x", kGpt2Text, R"x(\p{N}+)x",
                             R"x([0-9][0-9][0-9])x"};
constexpr Text kMiniCpm[] = {R"x(\p{N}{1,3})x",
                             R"x((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+|)x"
                             R"x( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kLlama3[] = {kLlama3Text};
constexpr Text kDeepSeekLlm[] = {
    R"x([\r\n])x",
    R"x(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)x",
    R"x(\s?[!-/:-~！-／：-～‘-‟　-。]+)x",
    R"x(\s+$)x",
    R"x([一-龥ࠀ-一가-퟿]+)x",
    R"x(\p{N}+)x"};
constexpr Text kDeepSeekCoder[] = {R"x([\r\n])x", R"x(\s?\p{L}+)x", R"x(\s?\p{P}+)x",
                                   R"x([一-龥ࠀ-一가-퟿]+)x", R"x(\p{N})x"};
constexpr Text kDeepSeek3[] = {
    R"x(\p{N}{1,3})x", R"x([一-龥぀-ゟ゠-ヿ]+)x",
    R"x([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)x"
    R"x([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kSpark[] = {
    R"x(\p{N}{1,3})x", R"x([一-龥぀-ゟ゠-ヿ]+)x",
    R"x([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)x"
    R"x([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)x",
    R"x(\p{N})x"};
// Small and capital letters are one here, as in llama.cpp, which made the files.
constexpr Text kYoutu[] = {
    R"x([가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|)x"
    R"x([一-龥぀-ゟ゠-ヿ]+)x",
    R"x([^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|)x"
    R"x('[dD])?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kGpt2[] = {kGpt2Text};
constexpr Text kDigitsGpt2[] = {R"x(\p{N})x", kGpt2Text};
constexpr Text kJais2[] = {
    R"x((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)x"
    R"x( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|)x"
    R"x(\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})x"};
constexpr Text kLines[] = {R"x([^\n]+|[\n]+)x"};
constexpr Text kNoSpaces[] = {R"x(\S+)x"};
constexpr Text kQwen2[] = {kQwenText};
constexpr Text kQwen35[] = {
    R"x((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)x"
    R"x( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kBloom[] = {R"x( ?[^(\s|.,!?…。，、।۔،)]+)x"};
constexpr Text kViking[] = {R"x( ?[^(\s|.,!?…。，、।۔،)]+)x", R"x(\p{N})x"};
constexpr Text kTekken[] = {
    R"x([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)x"
    R"x([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|)x"
    R"x( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kExaoneMoe[] = {
    R"x((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|)x"
    R"x(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)x"};
constexpr Text kChameleon[] = {
    R"x(<sentinel:[0-9]+>)x",    R"x((IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z)x",
    R"x(([\t\n]|    |  ))x",     R"x(\p{N})x",
    R"x([\p{P}!-/:-@\[-`{-~])x", kGpt2Text};
constexpr Text kGpt4o[] = {kO200k};
constexpr Text kGraniteEmbed[] = {
    R"x([^\r\n\p{L}\p{N}]?((?=[\p{L}\p{M}])([^a-z]))*((?=[\p{L}\p{M}])([^A-Z]))+(?:'[sS]|)x"
    R"x('[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|)x"
    R"x([^\r\n\p{L}\p{N}]?((?=[\p{L}\p{M}])([^a-z]))+((?=[\p{L}\p{M}])([^A-Z]))*(?:'[sS]|)x"
    R"x('[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}|)x"
    R"x( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kTinyAya[] = {R"x(\d{1,3}(?=(?:\d{3})*\b))x", kO200k};
constexpr Text kSuperBpe[] = {R"x(\p{N}+)x", R"x((?=(\d{3})+(?!\d)))x"};
constexpr Text kBailing[] = {
    R"x('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|)x"
    R"x(\s*[\r\n]|\s+(?!\S)|\s+)x"};
constexpr Text kSeedCoder[] = {
    R"x((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}|)x"
    R"x( ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kKimi[] = {
    R"x([\p{Han}]+|)x"
    R"x([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|)x"
    R"x('t|'re|'ve|'m|'ll|'d)?|)x"
    R"x([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|)x"
    R"x('t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kUfakZeka[] = {
    R"x([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kAfMoe[] = {
    R"x(\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))x",
    R"x([一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+)x",
    R"x([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)x"
    R"x([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};
constexpr Text kLaguna[] = {
    R"x([^\n]+|[\n]+)x",
    R"x((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|)x"
    R"x(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)x"};

const NamedGgufPreRule kRows[] = {
    {"default", {.patterns = kDefault}},
    {"minicpm5", {.patterns = kMiniCpm, .ignore_merges = true}},
    {"llama3", {.patterns = kLlama3, .ignore_merges = true, .bos = true}},
    {"llama-v3", {.patterns = kLlama3, .ignore_merges = true, .bos = true}},
    {"llama-bpe", {.patterns = kLlama3, .ignore_merges = true, .bos = true}},
    {"falcon3", {.patterns = kLlama3, .ignore_merges = true, .bos = true}},
    {"falcon-h1", {.patterns = kLlama3, .ignore_merges = true, .bos = true}},
    {"pixtral", {.patterns = kLlama3, .ignore_merges = true, .bos = true}},
    {"midm-2.0", {.patterns = kLlama3, .ignore_merges = true, .bos = true}},
    {"lfm2", {.patterns = kLlama3, .ignore_merges = true, .bos = true}},
    {"jina-v5-nano", {.patterns = kLlama3, .ignore_merges = true, .bos = true}},
    {"dbrx", {.patterns = kLlama3}},
    {"smaug-bpe", {.patterns = kLlama3}},
    {"chatglm-bpe", {.patterns = kLlama3}},
    {"glm4", {.patterns = kLlama3, .ignore_merges = true}},
    {"glm5", {.patterns = kLlama3, .ignore_merges = true}},
    {"deepseek-llm", {.patterns = kDeepSeekLlm}},
    {"deepseek-coder", {.patterns = kDeepSeekCoder}},
    {"deepseek-v3", {.patterns = kDeepSeek3}},
    {"hunyuan-dense", {.patterns = kDeepSeek3}},
    {"hy_v4", {.patterns = kDeepSeek3}},
    {"joyai-llm", {.patterns = kDeepSeek3}},
    {"spark2_5", {.patterns = kSpark}},
    {"youtu", {.patterns = kYoutu, .ignore_merges = true}},
    {"falcon", {.falcon = true}},
    {"mpt", {.patterns = kGpt2, .nfc = true}},
    {"gpt-2", {.patterns = kGpt2}},
    {"phi-2", {.patterns = kGpt2}},
    {"jina-es", {.patterns = kGpt2}},
    {"jina-de", {.patterns = kGpt2}},
    {"gigachat", {.patterns = kGpt2}},
    {"jina-v2-es", {.patterns = kGpt2}},
    {"jina-v2-de", {.patterns = kGpt2}},
    {"a.x-4.0", {.patterns = kGpt2}},
    {"mellum", {.patterns = kGpt2}},
    {"modern-bert", {.patterns = kGpt2}},
    {"exaone4", {.patterns = kGpt2}},
    {"jina-v1-en", {.patterns = kGpt2, .sep = true}},
    {"jina-v2-code", {.patterns = kGpt2, .sep = true}},
    {"roberta-bpe", {.patterns = kGpt2, .sep = true}},
    {"olmo", {.patterns = kGpt2, .nfc = true}},
    {"jais", {.patterns = kGpt2}},
    {"trillion", {.patterns = kGpt2}},
    {"granite-docling", {.patterns = kGpt2}},
    {"starcoder", {.patterns = kDigitsGpt2}},
    {"refact", {.patterns = kDigitsGpt2}},
    {"command-r", {.patterns = kDigitsGpt2}},
    {"smollm", {.patterns = kDigitsGpt2}},
    {"codeshell", {.patterns = kDigitsGpt2}},
    {"exaone", {.patterns = kDigitsGpt2}},
    {"minerva-7b", {.patterns = kDigitsGpt2}},
    {"mellum2", {.patterns = kDigitsGpt2}},
    {"jais-2", {.patterns = kJais2}},
    {"gemma4", {.patterns = kLines, .raw = true, .marks = true}},
    {"granite-embed-multi-311m", {.patterns = kLines, .bos = true, .raw = true, .marks = true}},
    {"sarvam-moe", {.patterns = kLines, .raw = true, .marks = true}},
    {"whitespace", {.patterns = kNoSpaces, .raw = true, .between_is_dropped = true}},
    {"qwen2", {.patterns = kQwen2, .nfc = true}},
    {"deepseek-r1-qwen", {.patterns = kQwen2}},
    {"kormo", {.patterns = kQwen2}},
    {"f2llmv2", {.patterns = kQwen2}},
    {"stablelm2", {.patterns = kQwen2}},
    {"megrez", {.patterns = kQwen2}},
    {"hunyuan", {.patterns = kQwen2}},
    {"grok-2", {.patterns = kQwen2}},
    {"solar-open", {.patterns = kQwen2}},
    {"qwen35", {.patterns = kQwen35, .nfc = true}},
    {"poro-chat", {.patterns = kBloom}},
    {"bloom", {.patterns = kBloom}},
    {"gpt3-finnish", {.patterns = kBloom}},
    {"viking", {.patterns = kViking}},
    {"tekken", {.patterns = kTekken, .ignore_merges = true, .bos = true}},
    {"exaone-moe", {.patterns = kExaoneMoe}},
    {"chameleon", {.patterns = kChameleon, .bos = true}},
    {"gpt-4o", {.patterns = kGpt4o}},
    {"llama4", {.patterns = kGpt4o}},
    {"kanana2", {.patterns = kGpt4o}},
    {"talkie", {.patterns = kGpt4o}},
    {"minimax-m2", {.patterns = kGpt4o}},
    {"granite-embed-multi-97m", {.patterns = kGraniteEmbed, .ignore_merges = true}},
    {"tiny_aya", {.patterns = kTinyAya}},
    {"cohere2moe", {.patterns = kTinyAya}},
    {"superbpe", {.patterns = kSuperBpe}},
    {"bailingmoe", {.patterns = kBailing}},
    {"bailingmoe2", {.patterns = kBailing}},
    {"llada-moe", {.patterns = kBailing}},
    {"seed-coder", {.patterns = kSeedCoder}},
    {"kimi-k2", {.patterns = kKimi}},
    {"ufakzeka", {.patterns = kUfakZeka}},
    {"afmoe", {.patterns = kAfMoe}},
    {"laguna", {.patterns = kLaguna}},
};

}  // namespace

std::span<const NamedGgufPreRule> gguf_pre_rules() { return kRows; }

std::optional<GgufPreRule> gguf_pre_rule(std::string_view name) {
  const auto row = std::ranges::find(kRows, name, &NamedGgufPreRule::name);
  if (row == std::end(kRows)) return std::nullopt;
  return row->rule;
}

std::vector<NormalizerStep> normalizers_of(const GgufPreRule& rule) {
  using Step = NormalizerStep::Kind;
  std::vector<NormalizerStep> steps;
  if (rule.nfc) steps.push_back({.kind = Step::Nfc});
  if (rule.marks) {
    steps.push_back({.kind = Step::Replace, .pattern = {false, " "}, .content = "\u2581"});
  }
  return steps;
}

std::vector<PreTokenizerStep> pre_tokenizers_of(const GgufPreRule& rule, bool raw) {
  using Step = PreTokenizerStep::Kind;
  if (rule.falcon) {
    return {{.kind = Step::Punctuation, .behavior = SplitBehavior::Contiguous},
            {.kind = Step::ByteLevel},
            {.kind = Step::Digits},
            {.kind = Step::Split, .pattern = {true, "[0-9][0-9][0-9]"}}};
  }
  std::vector<PreTokenizerStep> steps;
  for (const std::string_view pattern : rule.patterns) {
    PreTokenizerStep step = {.kind = Step::Split, .pattern = {true, std::string(pattern)}};
    if (rule.between_is_dropped) {
      step.behavior = SplitBehavior::Removed;
      step.invert = true;
    }
    steps.push_back(std::move(step));
  }
  if (!raw) steps.push_back({.kind = Step::ByteLevel, .use_regex = false});
  return steps;
}

}  // namespace quern
