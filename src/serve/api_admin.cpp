// Routes for whoever runs the server, with an admin's key: adapters that come and go.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/field_error.h"
#include "core/utf8.h"
#include "serve/api.h"
#include "serve/api_error.h"

namespace quern::serve {
namespace {

using nlohmann::ordered_json;

ordered_json adapter_entry(const Models::Entry& entry, const LoadedModel* loaded) {
  ordered_json out = {{"name", entry.source.name},
                      {"model", entry.source.base},
                      {"path", entry.source.adapter.string()},
                      {"loaded", loaded != nullptr}};
  if (loaded != nullptr && loaded->adapter != nullptr) {
    out["rank"] = loaded->adapter->max_rank();
    out["bytes"] = loaded->adapter->bytes();
  }
  return out;
}

}  // namespace

void Api::add_admin_endpoints(std::vector<Endpoint>& out) {
  out.push_back({"GET", "/admin/adapters", [this](const Call& call) { list_adapters(call); }});
  out.push_back({"POST", "/admin/adapters", [this](const Call& call) {
                   const Body body = Body::parse(call.request().body);
                   only_members(body.tree, "request", {"name", "path", "model"});
                   const std::string name = body.fields.at("name").string();
                   if (name.empty() || name.size() > 200 || printable(name, 200) != name) {
                     throw FieldError("request", "name", "is no name for a model");
                   }
                   ModelSource source;
                   source.name = name;
                   source.base = body.fields.string_or("model", "");
                   source.adapter = body.fields.at("path").string();
                   models_.add_adapter(std::move(source));
                   list_adapters(call);
                 }});
  out.push_back({"DELETE", "/admin/adapters/*", [this](const Call& call) {
                   models_.remove_adapter(call.rest);
                   list_adapters(call);
                 }});
}

void Api::list_adapters(const Call& call) {
  ordered_json list = ordered_json::array();
  const auto loaded = models_.loaded();
  for (const auto& entry : models_.entries()) {
    if (entry->source.base.empty()) continue;
    const LoadedModel* known = nullptr;
    for (const auto& model : loaded) {
      if (model->name == entry->source.name) known = model.get();
    }
    list.push_back(adapter_entry(*entry, known));
  }
  call.respond({{"object", "list"}, {"data", std::move(list)}});
}

}  // namespace quern::serve
