#include "evaluate/code_action.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/json.h"

namespace quern {
namespace {

// Walks the syntax tree that Python's own parser makes. `Stop` is an end that keeps the value so
// far; any other exception leaves none.
constexpr const char* kInterpreter = R"python(
import ast, difflib, json, operator

class Stop(Exception):
    pass

COMPARISONS = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}

def stub(tool):
    names = [parameter.split('=')[0] for parameter in tool['stub_parameters']]
    space = {}
    exec('def bind(' + ', '.join(tool['stub_parameters']) + '):\n return locals()', space)
    needs = tool.get('stub_requires')
    def call(*args, **kwargs):
        given = space['bind'](*args, **kwargs)
        if needs and needs['must_contain'] not in given[needs['parameter']]:
            raise ValueError(needs['parameter'])
        return tool['stub_result'].format(**{name: given[name] for name in names})
    return call

def last(body, state, tools):
    result = None
    for statement in body:
        value = walk(statement, state, tools)
        if value is not None:
            result = value
    return result

def walk(node, state, tools):
    if isinstance(node, ast.Assign):
        value = walk(node.value, state, tools)
        if len(node.targets) == 1:
            state[node.targets[0].id] = value
        else:
            if len(value) != len(node.targets):
                raise Stop('targets')
            for target, part in zip(node.targets, value):
                state[target.id] = part
        return value
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in tools:
            raise Stop('call')
        args = [walk(argument, state, tools) for argument in node.args]
        named = {argument.arg: walk(argument.value, state, tools) for argument in node.keywords}
        return tools[node.func.id](*args, **named)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Dict):
        keys = [walk(key, state, tools) for key in node.keys]
        return dict(zip(keys, [walk(value, state, tools) for value in node.values]))
    if isinstance(node, ast.List):
        return [walk(element, state, tools) for element in node.elts]
    if isinstance(node, (ast.Expr, ast.FormattedValue)):
        return walk(node.value, state, tools)
    if isinstance(node, ast.JoinedStr):
        return ''.join(str(walk(part, state, tools)) for part in node.values)
    if isinstance(node, ast.Name):
        if node.id not in state:
            raise Stop('name')
        return state[node.id]
    if isinstance(node, ast.For):
        result = None
        for value in walk(node.iter, state, tools):
            state[node.target.id] = value
            one = last(node.body, state, tools)
            if one is not None:
                result = one
        return result
    if isinstance(node, ast.If):
        return last(node.body if compare(node.test, state, tools) else node.orelse, state, tools)
    if isinstance(node, ast.Compare):
        return compare(node, state, tools)
    if isinstance(node, ast.Subscript):
        index = walk(node.slice, state, tools)
        value = walk(node.value, state, tools)
        if isinstance(value, (list, tuple)):
            return value[int(index)]
        if index in value:
            return value[index]
        if isinstance(index, str) and isinstance(value, dict):
            near = difflib.get_close_matches(index, [k for k in value if isinstance(k, str)])
            if near:
                return value[near[0]]
        raise Stop('subscript')
    raise Stop('syntax')

def compare(node, state, tools):
    if len(node.ops) > 1:
        raise Stop('comparison')
    left = walk(node.left, state, tools)
    right = walk(node.comparators[0], state, tools)
    return COMPARISONS[type(node.ops[0])](left, right)

def run(code, inputs, tools):
    state = dict(inputs) if isinstance(inputs, dict) else {name: f'<<{name}>>' for name in inputs}
    result = None
    try:
        for statement in ast.parse(code).body:
            try:
                value = walk(statement, state, tools)
            except Stop:
                break
            if value is not None:
                result = value
    except Exception:
        return None
    return result

def main():
    tools = {'print': lambda *args, **kwargs: None, 'range': range, 'float': float, 'int': int,
             'bool': bool, 'str': str}
    tools.update({tool['name']: stub(tool) for tool in data['tools']})
    value = run(data['code'], data['inputs'], tools)
    answers = [run(answer, data['inputs'], tools) for answer in data['answers']]
    # Nothing is right that comes of nothing.
    equal = next((i for i, a in enumerate(answers) if a is not None and a == value), -1)
    holds = isinstance(value, dict) and any(a in value.values() for a in answers if a is not None)
    print(json.dumps({'equal': equal, 'holds': holds, 'value': repr(value)[:500]}))

main()
)python";

}  // namespace

CodeActionOutcome run_code_action(const CodeAction& action, ProgramJudge& programs) {
  const nlohmann::ordered_json data = {{"code", action.code},
                                       {"inputs", action.inputs},
                                       {"tools", action.tools},
                                       {"answers", action.answers}};
  // JSON in ASCII, and that again as one JSON string, which is a string to Python too.
  const auto ascii = [](const nlohmann::ordered_json& value) {
    return value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  };
  const std::string program =
      fmt::format("import json\ndata = json.loads({})\n{}", ascii(ascii(data)), kInterpreter);
  const PythonVerdict verdict = programs.run(program, {.cpu_seconds = 3});
  CodeActionOutcome out;
  out.timed_out = verdict.outcome.timed_out;
  if (!verdict.reached_end) return out;
  const Json json = Json::parse(verdict.outcome.out, "what the code's run gave");
  out.equal = static_cast<int>(json.at("equal").integer());
  out.holds = json.at("holds").boolean();
  out.value = json.at("value").string();
  return out;
}

}  // namespace quern
