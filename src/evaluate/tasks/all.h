// The declarations of tasks/, which task.cpp gathers into the table.
#pragma once

#include <vector>

#include "evaluate/task.h"

namespace quern {

Task ceval_task();
Task ceval_test_task();
Task cmmlu_task();
Task mmlu_task();
Task aqua_task();
Task humaneval_task();
Task mbpp_task();
Task gsm8k_task();
Task svamp_task();
Task wmt22_zh_en_task();
Task wmt22_en_zh_task();
Task wikitext2_task();
Task longdocs_task();
Task chat_ceval_task();
Task chat_mmlu_task();
Task chat_humaneval_task();
Task chat_gsm8k_task();
Task chat_gsm8k_4shot_task();
Task plugins_task();
Task plugins_own_task();
Task hfagent_task();
Task safety_task();

}  // namespace quern
