// Chat templates for models that come without one, in our own words: each writes the format that the
// models of its name were trained on.
#include <algorithm>
#include <iterator>

#include "text/chat_template.h"

namespace quern {
namespace {

struct Builtin {
  std::string_view name, text;
};

constexpr Builtin kBuiltins[] = {
    // Qwen, SmolLM, Yi, Hermes and many others. No system message of its own.
    {"chatml",
     "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
     "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"},
    // The first Qwen releases, with their system message.
    {"qwen",
     "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant."
     "<|im_end|>\n{% endif %}"
     "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
     "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"},
    {"llama-2",
     "{% set ns = namespace(system='') %}"
     "{% if messages[0].role == 'system' %}"
     "{% set ns.system = '<<SYS>>\\n' ~ messages[0].content|trim ~ '\\n<</SYS>>\\n\\n' %}"
     "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}"
     "{% for m in turns %}"
     "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
     "{{ raise_exception('roles must alternate: user, assistant, user, ...') }}{% endif %}"
     "{% if m.role == 'user' %}"
     "{{ bos_token }}[INST] {{ (ns.system ~ m.content)|trim if loop.first else m.content|trim }} "
     "[/INST]"
     "{% else %} {{ m.content|trim }} {{ eos_token }}{% endif %}{% endfor %}"},
    {"llama-3",
     "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
     "{{ m.content|trim }}<|eot_id|>{% endfor %}"
     "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"},
    // A system message stands before the user's first words.
    {"mistral",
     "{{ bos_token }}{% set ns = namespace(system='') %}"
     "{% if messages[0].role == 'system' %}{% set ns.system = messages[0].content ~ '\\n\\n' %}"
     "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}"
     "{% for m in turns %}"
     "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
     "{{ raise_exception('roles must alternate: user, assistant, user, ...') }}{% endif %}"
     "{% if m.role == 'user' %}[INST] {{ ns.system if loop.first }}{{ m.content }} [/INST]"
     "{% else %} {{ m.content|trim }}{{ eos_token }}{% endif %}{% endfor %}"},
    {"gemma",
     "{{ bos_token }}{% set ns = namespace(system='') %}"
     "{% if messages[0].role == 'system' %}{% set ns.system = messages[0].content|trim ~ '\\n\\n' "
     "%}"
     "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}"
     "{% for m in turns %}"
     "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
     "{{ raise_exception('roles must alternate: user, assistant, user, ...') }}{% endif %}"
     "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
     "{{ ns.system if loop.first }}{{ m.content|trim }}<end_of_turn>\n{% endfor %}"
     "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"},
    {"phi-3",
     "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
     "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"},
    {"phi-4",
     "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>"
     "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"},
    {"deepseek",
     "{{ bos_token }}{% for m in messages %}"
     "{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
     "{% elif m.role == 'assistant' %}<｜Assistant｜>"
     "{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>"
     "{% else %}{{ m.content }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"},
    {"vicuna",
     "{{ bos_token }}{% if messages[0].role != 'system' %}A chat between a curious user and an "
     "artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers "
     "to the user's questions. {% endif %}"
     "{% for m in messages %}"
     "{% if m.role == 'user' %}USER: {{ m.content|trim }} "
     "{% elif m.role == 'assistant' %}ASSISTANT: {{ m.content|trim }}{{ eos_token }}"
     "{% else %}{{ m.content|trim }} {% endif %}{% endfor %}"
     "{% if add_generation_prompt %}ASSISTANT:{% endif %}"},
    {"alpaca",
     "{% if messages[0].role != 'system' %}Below is an instruction that describes a task. Write a "
     "response that appropriately completes the request.\n\n{% endif %}"
     "{% for m in messages %}"
     "{% if m.role == 'user' %}### Instruction:\n{{ m.content|trim }}\n\n"
     "{% elif m.role == 'assistant' %}### Response:\n{{ m.content|trim }}{{ eos_token }}\n\n"
     "{% else %}{{ m.content|trim }}\n\n{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}### Response:\n{% endif %}"},
    {"zephyr",
     "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
     "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"},
};

// Other names of the same formats.
constexpr Builtin kAliases[] = {{"llama2", "llama-2"}, {"llama3", "llama-3"}, {"phi", "phi-3"},
                                {"phi3", "phi-3"},     {"phi4", "phi-4"},     {"smollm", "chatml"},
                                {"qwen2", "chatml"}};

}  // namespace

const std::vector<std::string_view>& builtin_chat_templates() {
  static const std::vector<std::string_view> kNames = [] {
    std::vector<std::string_view> names;
    for (const Builtin& row : kBuiltins) names.push_back(row.name);
    return names;
  }();
  return kNames;
}

std::string_view builtin_chat_template(std::string_view name) {
  for (const Builtin& alias : kAliases) {
    if (alias.name == name) return builtin_chat_template(alias.text);
  }
  const auto* found = std::find_if(std::begin(kBuiltins), std::end(kBuiltins),
                                   [&](const Builtin& row) { return row.name == name; });
  return found == std::end(kBuiltins) ? std::string_view() : found->text;
}

}  // namespace quern
