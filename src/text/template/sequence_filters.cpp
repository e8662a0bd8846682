// Filters of lists and dicts.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>

#include "text/template/builtins.h"
#include "text/template/filters.h"
#include "text/template/interpreter.h"
#include "text/template/python_text.h"

namespace quern::chat_template {
namespace {

using Cause = TemplateError::Cause;

Value generator(Interpreter& run, std::vector<Value> items) {
  return run.make_list(std::move(items), Sequence::Kind::Generator);
}

// "a.b.0": members and items, one after the other; `fallback` stands for each that is missing.
Value attribute_of(Interpreter& run, Value value, std::string_view path,
                   const Value* fallback = nullptr) {
  for (;;) {
    const size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    const bool number =
        !part.empty() && part.size() < 10 &&
        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    value =
        run.item(value, number ? Value(int64_t{std::stoi(std::string(part))}) : Value::text(part));
    if (value.is_undefined() && fallback != nullptr && !fallback->is_none()) value = *fallback;
    if (dot == path.npos) return value;
    path.remove_prefix(dot + 1);
  }
}

Value attribute_of(Interpreter& run, const Value& value, const Value& attribute,
                   const Value* fallback = nullptr) {
  if (const MarkedText* path = attribute.as_text()) {
    return attribute_of(run, value, path->bytes(), fallback);
  }
  const Value found = run.item(value, attribute);
  return found.is_undefined() && fallback != nullptr && !fallback->is_none() ? *fallback : found;
}

// Case does not tell texts apart, unless asked for.
Value folded(Interpreter& run, const Value& value, bool case_sensitive) {
  const MarkedText* text = value.as_text();
  return text != nullptr && !case_sensitive ? run.make_text(lower(*text)) : value;
}

Value do_length(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("length", given, {});
  return static_cast<int64_t>(run.length(value));
}
Value do_first(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("first", given, {});
  const SequencePointer items = run.iterate(value);
  if (items->items.empty()) {
    return undefined("No first item, sequence was empty.");
  }
  return items->items.front();
}
Value do_last(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("last", given, {});
  if (const Sequence* list = value.as_sequence();
      list != nullptr && list->kind == Sequence::Kind::Generator) {
    fail_type("'generator' object is not reversible");
  }
  const SequencePointer items = run.iterate(value);
  if (items->items.empty()) {
    return undefined("No last item, sequence was empty.");
  }
  return items->items.back();
}
Value do_list(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("list", given, {});
  return run.make_list(run.iterate(value)->items);
}
Value do_reverse(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("reverse", given, {});
  if (const MarkedText* text = value.as_text()) return run.make_text(reverse(*text));
  std::vector<Value> items = run.iterate(value)->items;
  std::reverse(items.begin(), items.end());
  return generator(run, std::move(items));
}
Value do_join(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("join", given, {"d", "attribute"});
  const MarkedText separator = args[0] != nullptr ? run.str(*args[0]) : MarkedText();
  MarkedText out;
  bool first = true;
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    if (!first) out.append(separator);
    first = false;
    run.spend(item.weight());
    append_str(out, args[1] != nullptr ? attribute_of(run, item, *args[1]) : item);
    run.spend(1);
    run.spend_bytes(separator.size());
    if (out.size() > (size_t{1} << 20)) run.spend_bytes(out.size() / 64);
  }
  return run.make_text(std::move(out));
}
Value do_items(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader none("items", given, {});
  if (value.is_undefined()) return generator(run, {});
  const Dict* dict = value.as_dict();
  if (dict == nullptr) fail_type("Can only get item pairs from a mapping.");
  std::vector<Value> items;
  for (const auto& [key, member] : dict->members) {
    items.push_back(run.make_list({key, member}, Sequence::Kind::Tuple));
  }
  return generator(run, std::move(items));
}

// Keys by which a list is sorted, and the items in their order.
std::vector<Value> sorted(Interpreter& run, const std::vector<Value>& items,
                          const std::vector<Value>& keys, bool descending) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return descending ? run.less(keys[b], keys[a]) : run.less(keys[a], keys[b]);
  });
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(items[i]);
  return out;
}
Value do_sort(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("sort", given, {"reverse", "case_sensitive", "attribute"});
  const std::vector<Value> items = run.iterate(value)->items;
  std::vector<Value> keys;
  for (const Value& item : items) {
    if (args[2] == nullptr || args[2]->is_none()) {
      keys.push_back(folded(run, item, args.flag(1, false)));
      continue;
    }
    std::vector<Value> parts;  // several attributes, parted by commas
    const MarkedText* path = args[2]->as_text();
    if (path == nullptr) {
      parts.push_back(folded(run, run.item(item, *args[2]), args.flag(1, false)));
    } else {
      for (std::string_view rest = path->bytes(); !rest.empty();) {
        const size_t comma = std::min(rest.find(','), rest.size());
        parts.push_back(
            folded(run, attribute_of(run, item, rest.substr(0, comma)), args.flag(1, false)));
        rest.remove_prefix(std::min(comma + 1, rest.size()));
      }
    }
    for (const Value& part : parts) Interpreter::need_defined(part);
    keys.push_back(run.make_list(std::move(parts)));
  }
  // Keys are compared even where there is nothing to sort: a mixed list is an error.
  return run.make_list(sorted(run, items, keys, args.flag(0, false)));
}
Value do_dictsort(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("dictsort", given, {"case_sensitive", "by", "reverse"});
  const Dict* dict = value.as_dict();
  if (dict == nullptr) {
    Interpreter::need_defined(value);
    fail_type(fmt::format("'{}' object has no attribute 'items'", value.type_name()));
  }
  const std::string_view by = args.text(1) != nullptr ? args.text(1)->bytes() : "key";
  if (by != "key" && by != "value") {
    throw TemplateError(Cause::Other, "You can only sort by either \"key\" or \"value\"",
                        "FilterArgumentError");
  }
  std::vector<Value> items, keys;
  for (const auto& [key, member] : dict->members) {
    items.push_back(run.make_list({key, member}, Sequence::Kind::Tuple));
    keys.push_back(folded(run, by == "key" ? key : member, args.flag(0, false)));
  }
  return run.make_list(sorted(run, items, keys, args.flag(2, false)));
}
Value do_unique(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("unique", given, {"case_sensitive", "attribute"});
  std::vector<Value> out;
  std::unordered_multimap<size_t, Value> seen;
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    const Value key = folded(
        run, args[1] != nullptr && !args[1]->is_none() ? attribute_of(run, item, *args[1]) : item,
        args.flag(0, false));
    run.spend(key.weight());
    const auto hash = hash_of(key);
    if (!hash) fail_type(fmt::format("unhashable type: '{}'", key.type_name()));
    run.spend(1);
    const auto [begin, end] = seen.equal_range(*hash);
    if (std::any_of(begin, end, [&](const auto& one) { return run.same(one.second, key); }))
      continue;
    seen.emplace(*hash, key);
    out.push_back(item);
  }
  return generator(run, std::move(out));
}
Value extreme(Interpreter& run, const Value& value, const Arguments& given, bool most) {
  const ArgumentReader args(most ? "max" : "min", given, {"case_sensitive", "attribute"});
  const SequencePointer items = run.iterate(value);
  if (items->items.empty()) {
    return undefined("No aggregated item, sequence was empty.");
  }
  const auto key = [&](const Value& item) {
    return folded(
        run, args[1] != nullptr && !args[1]->is_none() ? attribute_of(run, item, *args[1]) : item,
        args.flag(0, false));
  };
  Value best = items->items[0], best_key = key(best);
  for (size_t i = 1; i < items->items.size(); ++i) {
    const Value other = key(items->items[i]);
    if (most ? run.less(best_key, other) : run.less(other, best_key)) {
      best = items->items[i];
      best_key = other;
    }
  }
  return best;
}
Value do_max(Interpreter& run, const Value& value, const Arguments& given) {
  return extreme(run, value, given, true);
}
Value do_min(Interpreter& run, const Value& value, const Arguments& given) {
  return extreme(run, value, given, false);
}
Value do_sum(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("sum", given, {"attribute", "start"});
  Value total = args[1] != nullptr ? *args[1] : Value(int64_t{0});
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    const bool by = args[0] != nullptr && !args[0]->is_none();
    total = run.binary(Operator::Add, total, by ? attribute_of(run, item, *args[0]) : item);
  }
  return total;
}
Value do_batch(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("batch", given, {"linecount", "fill_with"}, 1);
  const auto size = static_cast<size_t>(std::max<int64_t>(args.integer(0, 1), 1));
  std::vector<Value> out, row;
  const auto flush = [&](bool last) {
    if (last && args[1] != nullptr && !args[1]->is_none()) {
      run.spend(size - row.size());
      row.resize(size, *args[1]);
    }
    out.push_back(run.make_list(std::exchange(row, {})));
  };
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    row.push_back(item);
    if (row.size() == size) flush(false);
  }
  if (!row.empty()) flush(true);
  return generator(run, std::move(out));
}
Value do_slice(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("slice", given, {"slices", "fill_with"}, 1);
  const std::vector<Value> items = run.iterate(value)->items;
  const auto count = static_cast<size_t>(std::max<int64_t>(args.integer(0, 1), 1));
  run.spend(count);
  const size_t each = items.size() / count, more = items.size() % count;
  std::vector<Value> out;
  for (size_t i = 0, at = 0; i < count; ++i) {
    const size_t size = each + (i < more ? 1 : 0);
    std::vector<Value> row(items.begin() + static_cast<ptrdiff_t>(at),
                           items.begin() + static_cast<ptrdiff_t>(at + size));
    at += size;
    if (i >= more && args[1] != nullptr && !args[1]->is_none()) row.push_back(*args[1]);
    out.push_back(run.make_list(std::move(row)));
  }
  return generator(run, std::move(out));
}
Value do_groupby(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("groupby", given, {"attribute", "default", "case_sensitive"}, 1);
  const std::vector<Value> items = run.iterate(value)->items;
  std::vector<Value> keys, names;
  for (const Value& item : items) {
    const Value name = attribute_of(run, item, *args[0], args[1]);
    names.push_back(run.make_list({name, item}));
    keys.push_back(folded(run, name, args.flag(2, false)));
  }
  std::vector<Value> pairs;
  for (size_t i = 0; i < items.size(); ++i) pairs.push_back(run.make_list({keys[i], names[i]}));
  const std::vector<Value> ordered = sorted(run, pairs, keys, false);
  std::vector<Value> out;
  for (size_t i = 0; i < ordered.size();) {
    const Value key = ordered[i].as_sequence()->items[0];
    const Value first = ordered[i].as_sequence()->items[1].as_sequence()->items[0];
    std::vector<Value> group;
    for (; i < ordered.size() && run.same(ordered[i].as_sequence()->items[0], key); ++i) {
      group.push_back(ordered[i].as_sequence()->items[1].as_sequence()->items[1]);
    }
    out.push_back(run.make_list({first, run.make_list(std::move(group))}, Sequence::Kind::Tuple));
    out.back().as_sequence()->grouped = true;
  }
  return run.make_list(std::move(out));
}

// ---- Items and attributes

std::string_view name_of(const Value& value) {
  const MarkedText* text = value.as_text();
  if (text == nullptr) {
    Interpreter::need_defined(value);
    fail_type(fmt::format("the name of a filter or test is '{}'", value.type_name()));
  }
  return text->bytes();
}

Value do_map(Interpreter& run, const Value& value, const Arguments& given) {
  const SequencePointer items = run.iterate(value);
  std::vector<Value> out;
  if (given.positional.empty()) {
    if (given.named.empty()) {
      throw TemplateError(Cause::Other, "map requires a filter argument", "FilterArgumentError");
    }
    const ArgumentReader args("map", given, {"attribute", "default"}, 1);
    for (const Value& item : items->items) {
      out.push_back(attribute_of(run, item, *args[0], args[1]));
    }
    return generator(run, std::move(out));
  }
  const std::string_view name = name_of(given.positional[0]);
  if (!has_filter(name)) {
    throw TemplateError(Cause::Other, fmt::format("No filter named '{}'.", printable(name, 40)),
                        "TemplateRuntimeError");
  }
  const Arguments rest{{given.positional.begin() + 1, given.positional.end()}, given.named};
  for (const Value& item : items->items) out.push_back(call_filter(run, name, item, rest));
  return generator(run, std::move(out));
}

Value select(Interpreter& run, const Value& value, const Arguments& given, bool keep,
             bool by_attribute) {
  const size_t first = by_attribute ? 1 : 0;
  if (given.positional.size() < first) {
    throw TemplateError(Cause::Other, "Missing parameter for attribute name",
                        "FilterArgumentError");
  }
  const bool tested = given.positional.size() > first;
  const std::string_view name = tested ? name_of(given.positional[first]) : std::string_view();
  if (tested && !has_test(name)) {
    throw TemplateError(Cause::Other, fmt::format("No test named '{}'.", printable(name, 40)),
                        "TemplateRuntimeError");
  }
  Arguments rest;
  if (tested) {
    rest = {{given.positional.begin() + static_cast<ptrdiff_t>(first) + 1, given.positional.end()},
            given.named};
  }
  std::vector<Value> out;
  for (const auto all = run.iterate(value); const Value& item : all->items) {
    run.spend(1);
    const Value subject = by_attribute ? attribute_of(run, item, given.positional[0]) : item;
    const bool good = tested ? call_test(run, name, subject, rest) : subject.truthy();
    if (good == keep) out.push_back(item);
  }
  return generator(run, std::move(out));
}
Value do_select(Interpreter& run, const Value& value, const Arguments& given) {
  return select(run, value, given, true, false);
}
Value do_reject(Interpreter& run, const Value& value, const Arguments& given) {
  return select(run, value, given, false, false);
}
Value do_selectattr(Interpreter& run, const Value& value, const Arguments& given) {
  return select(run, value, given, true, true);
}
Value do_rejectattr(Interpreter& run, const Value& value, const Arguments& given) {
  return select(run, value, given, false, true);
}
Value do_attr(Interpreter& run, const Value& value, const Arguments& given) {
  const ArgumentReader args("attr", given, {"name"}, 1);
  // An attribute alone: a dict's keys are none.
  const std::string_view name = name_of(*args[0]);
  if (value.as_dict() == nullptr) return run.member(value, name);
  bool unsafe = false;
  if (auto method = find_method(value, name, unsafe)) return std::move(*method);
  return undefined(unsafe
                       ? fmt::format("access to attribute '{}' of 'dict' object is unsafe.", name)
                       : fmt::format("'dict object' has no attribute '{}'", name),
                   unsafe);
}

}  // namespace

const FilterTable& sequence_filters() {
  static const FilterTable kFilters = {
      {"attr", do_attr},
      {"batch", do_batch},
      {"count", do_length},
      {"dictsort", do_dictsort},
      {"first", do_first},
      {"groupby", do_groupby},
      {"items", do_items},
      {"join", do_join},
      {"last", do_last},
      {"length", do_length},
      {"list", do_list},
      {"map", do_map},
      {"max", do_max},
      {"min", do_min},
      {"reject", do_reject},
      {"rejectattr", do_rejectattr},
      {"reverse", do_reverse},
      {"select", do_select},
      {"selectattr", do_selectattr},
      {"slice", do_slice},
      {"sort", do_sort},
      {"sum", do_sum},
      {"unique", do_unique},
  };
  return kFilters;
}

}  // namespace quern::chat_template
