#include "tools/http_tool.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "net/http_client.h"
#include "net/url.h"
#include "tools/builtin.h"
#include "tools/schema_check.h"

namespace quern {
namespace {

constexpr size_t kMaxOperations = 512;
constexpr uint64_t kMaxBody = uint64_t{8} << 20;

// Asks, and puts what came into a result.
ToolResult ask(net::HttpClient& client, net::HttpCall call, const CallContext& context) {
  const net::HttpReply reply = client.send(std::move(call), context.cancel);
  if (!reply.failure.empty()) return {reply.failure, true};
  if (reply.status >= 300 && reply.status < 400) {
    return {fmt::format("the server answers {} and points to {}, which is not followed",
                        reply.status, printable(reply.header("location"), 200)),
            true};
  }
  if (!reply.ok()) return {fmt::format("status {}: {}", reply.status, reply.body), true};
  return {reply.body.empty() ? fmt::format("status {}", reply.status) : reply.body};
}

std::unique_ptr<net::HttpClient> client_for(const HttpToolOptions& options) {
  net::ClientOptions client;
  client.policy = http_policy(options.addresses, "addresses");
  client.proxy = "";
  client.max_redirects = 0;
  client.max_body_bytes = kMaxBody;
  for (const auto& header : options.headers) client.headers.push_back(header);
  return std::make_unique<net::HttpClient>(std::move(client));
}

struct Parameter {
  std::string name, place;  // path, query, header
  bool required = false;
};

class Operation : public Tool {
 public:
  Operation(ToolSpec spec, std::string method, std::string url, std::vector<Parameter> parameters,
            bool has_body, const HttpToolOptions& options)
      : Tool(std::move(spec)),
        method_(std::move(method)),
        url_(std::move(url)),
        parameters_(std::move(parameters)),
        has_body_(has_body),
        options_(options) {}

  ToolResult call(const OrderedJson& arguments, const CallContext& context) override {
    net::HttpCall call;
    call.method = method_;
    std::string url = url_, query;
    for (const Parameter& parameter : parameters_) {
      const OrderedJson* value = arguments.find(parameter.name);
      if (value == nullptr || value->is_null()) continue;
      for (const std::string& text : texts_of(*value)) {
        if (parameter.place == "path") {
          const std::string hole = "{" + parameter.name + "}";
          const size_t at = url.find(hole);
          if (at != url.npos) url.replace(at, hole.size(), net::percent_encode(text));
        } else if (parameter.place == "query") {
          query += (query.empty() ? "?" : "&") + net::percent_encode(parameter.name) + "=" +
                   net::percent_encode(text);
        } else {
          if (text.find_first_of("\r\n") != text.npos) {
            return {parameter.name + " has a line break, which no header may have", true};
          }
          call.headers.emplace_back(parameter.name, text);
        }
      }
    }
    call.path = url + query;
    if (has_body_) {
      if (const OrderedJson* body = arguments.find("body")) {
        call.body = python_dumps(*body);
        call.headers.emplace_back("Content-Type", "application/json");
      }
    }
    HttpToolOptions options = options_;
    const auto client = client_for(options);
    return ask(*client, std::move(call), context);
  }

 private:
  // Lists are given once for each item, as OpenAPI's form style does.
  static std::vector<std::string> texts_of(const OrderedJson& value) {
    if (value.is_string()) return {value.text};
    std::vector<std::string> out;
    if (value.is_array()) {
      for (const OrderedJson& item : value.items) {
        out.push_back(item.is_string() ? item.text : python_dumps(item));
      }
      return out;
    }
    return {python_dumps(value)};
  }

  std::string method_, url_;
  std::vector<Parameter> parameters_;
  bool has_body_;
  HttpToolOptions options_;
};

// The description's parts, with its references followed.
class OpenApi {
 public:
  OpenApi(const OrderedJson& root, const HttpToolOptions& options, std::string source)
      : root_(root), options_(options), source_(std::move(source)) {}

  std::vector<std::unique_ptr<Tool>> tools() {
    const OrderedJson* version = root_.find("openapi");
    if (version == nullptr || !version->is_string() || !version->text.starts_with("3.")) {
      fail("openapi", "is not 3.0 or 3.1");
    }
    server_ = server();
    const OrderedJson* paths = root_.find("paths");
    if (paths == nullptr || !paths->is_object()) fail("paths", "is no object");
    std::vector<std::unique_ptr<Tool>> out;
    for (const auto& [path, item_given] : paths->members) {
      const std::string where = "paths." + path;
      const OrderedJson& item = target(item_given, where);
      for (const auto& [method, operation] : item.members) {
        if (!is_method(method)) continue;
        if (!operation.is_object()) fail(where + "." + method, "is no object");
        std::unique_ptr<Tool> tool = make(path, method, item, operation, where + "." + method);
        if (tool == nullptr) continue;
        for (const auto& other : out) {
          if (other->spec().name == tool->spec().name) {
            fail(where + "." + method, "has the operationId of another operation");
          }
        }
        out.push_back(std::move(tool));
        if (out.size() > kMaxOperations) fail("paths", "has more than 512 operations");
      }
    }
    for (const std::string& name : options_.operations) {
      const bool there =
          std::ranges::any_of(out, [&](const auto& tool) { return tool->spec().name == name; });
      if (!there) fail("paths", "has no operation " + printable(name, 60));
    }
    return out;
  }

 private:
  [[noreturn]] void fail(const std::string& where, const std::string& problem) const {
    throw_bad_input(fmt::format("{}: {} {}", source_, printable(where, 120), problem));
  }
  static bool is_method(std::string_view name) {
    constexpr std::string_view kMethods[] = {"get", "put", "post", "delete", "patch", "head"};
    return std::ranges::find(kMethods, name) != std::end(kMethods);
  }

  std::string server() const {
    if (!options_.server.empty()) return trimmed(options_.server);
    const OrderedJson* servers = root_.find("servers");
    if (servers == nullptr || !servers->is_array() || servers->items.empty()) {
      fail("servers", "is empty: name one with server = \"https://...\"");
    }
    const OrderedJson* url = servers->items[0].find("url");
    if (url == nullptr || !url->is_string()) fail("servers[0].url", "is no text");
    if (!url->text.starts_with("http://") && !url->text.starts_with("https://")) {
      fail("servers[0].url", "is no http address: name one with server = \"https://...\"");
    }
    return trimmed(url->text);
  }
  static std::string trimmed(std::string url) {
    while (url.ends_with('/')) url.pop_back();
    net::Url::parse(url, "the server");  // throws for what is none
    return url;
  }

  // What a reference leads to, through others.
  const OrderedJson& target(const OrderedJson& value, const std::string& where) const {
    const OrderedJson* at = &value;
    for (int hops = 0; at->is_object() && at->find("$ref") != nullptr; ++hops) {
      const OrderedJson* ref = at->find("$ref");
      if (!ref->is_string() || !ref->text.starts_with("#/")) {
        fail(where, "refers to something outside of this file");
      }
      if (hops == 32) fail(where, "refers around in a circle");
      at = &root_;
      for (size_t from = 2; from <= ref->text.size();) {
        const size_t end = std::min(ref->text.find('/', from), ref->text.size());
        std::string name = ref->text.substr(from, end - from);
        for (const auto& [code, c] : {std::pair("~1", '/'), std::pair("~0", '~')}) {
          for (size_t i = name.find(code); i != name.npos; i = name.find(code, i + 1)) {
            name.replace(i, 2, 1, c);
          }
        }
        at = at->find(name);
        if (at == nullptr)
          fail(where, "refers to " + printable(ref->text, 80) + ", which is not there");
        from = end + 1;
      }
    }
    return *at;
  }

  // `schema` with its references pointing into `definitions`, where what they name is collected:
  // schemas that contain themselves stay finite.
  OrderedJson bundled(const OrderedJson& schema, OrderedJson& definitions, const std::string& where,
                      int depth = 0) const {
    if (depth > 60) fail(where, "is nested too deeply");
    if (schema.is_array()) {
      OrderedJson out = schema;
      for (OrderedJson& item : out.items) item = bundled(item, definitions, where, depth + 1);
      return out;
    }
    if (!schema.is_object()) return schema;
    OrderedJson out;
    out.kind = OrderedJson::Kind::Object;
    for (const auto& [name, value] : schema.members) {
      // Keys of OpenAPI that JSON Schema lacks, or that are for readers.
      if (name == "example" || name == "xml" || name == "externalDocs" || name == "discriminator" ||
          name == "readOnly" || name == "writeOnly" || name == "deprecated" ||
          name.starts_with("x-")) {
        if (depth == 0 || !value.is_object() || name != "example") continue;
      }
      if (name == "nullable") continue;
      if (name == "$ref" && value.is_string()) {
        target(schema, where);  // throws for a circle of nothing but references
        const std::string id = value.text.substr(value.text.rfind('/') + 1);
        if (definitions.find(id) == nullptr) {
          definitions.set(id, {});  // before its inside, which may name it again
          OrderedJson once;
          once.set("$ref", value);
          OrderedJson inner = bundled(one_step(value.text, where), definitions, where, depth + 1);
          definitions.set(id, std::move(inner));
        }
        out.set("$ref", OrderedJson::of_string("#/$defs/" + id));
        continue;
      }
      out.set(name, bundled(value, definitions, where, depth + 1));
    }
    const OrderedJson* nullable = schema.find("nullable");  // OpenAPI 3.0
    const OrderedJson* type = out.find("type");
    if (nullable != nullptr && nullable->boolean && type != nullptr && type->is_string()) {
      OrderedJson types;
      types.kind = OrderedJson::Kind::Array;
      types.items = {*type, OrderedJson::of_string("null")};
      out.set("type", std::move(types));
    }
    return out;
  }
  const OrderedJson& one_step(const std::string& reference, const std::string& where) const {
    OrderedJson value;
    value.set("$ref", OrderedJson::of_string(reference));
    return target(value, where);
  }

  std::unique_ptr<Tool> make(const std::string& path, const std::string& method,
                             const OrderedJson& item, const OrderedJson& operation,
                             const std::string& where) const {
    ToolSpec spec;
    const OrderedJson* id = operation.find("operationId");
    spec.name = id != nullptr && id->is_string() ? id->text : method + path;
    for (char& c : spec.name) {
      const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '_' || c == '-';
      if (!good) c = '_';
    }
    spec.name.resize(std::min<size_t>(spec.name.size(), 64));
    const auto& wanted = options_.operations;
    if (!wanted.empty() && std::ranges::find(wanted, spec.name) == wanted.end()) return nullptr;
    for (const char* name : {"summary", "description"}) {
      const OrderedJson* text = operation.find(name);
      if (text == nullptr || !text->is_string()) continue;
      spec.description += (spec.description.empty() ? "" : " ") + text->text;
    }
    spec.description = observation_text(spec.description, 1000);
    spec.side_effects = method != "get" && method != "head";
    spec.timeout_s = options_.timeout_s;
    spec.max_output = options_.max_output;
    spec.origin = source_;

    std::vector<Parameter> parameters;
    OrderedJson properties, required, definitions;
    properties.kind = definitions.kind = OrderedJson::Kind::Object;
    required.kind = OrderedJson::Kind::Array;
    for (const OrderedJson* list : {item.find("parameters"), operation.find("parameters")}) {
      if (list == nullptr) continue;
      if (!list->is_array()) fail(where + ".parameters", "is no list");
      for (const OrderedJson& given : list->items) {
        add_parameter(target(given, where + ".parameters"), where, parameters, properties, required,
                      definitions);
      }
    }
    bool has_body = false;
    if (const OrderedJson* given = operation.find("requestBody")) {
      const OrderedJson& body = target(*given, where + ".requestBody");
      const OrderedJson* content = body.find("content");
      const OrderedJson* json = content == nullptr ? nullptr : content->find("application/json");
      if (json == nullptr) {
        fail(where + ".requestBody", "takes no application/json, the only kind that is sent here");
      }
      const OrderedJson* schema = json->find("schema");
      OrderedJson any;
      any.kind = OrderedJson::Kind::Object;
      properties.set("body", bundled(schema == nullptr ? any : *schema, definitions, where));
      const OrderedJson* needed = body.find("required");
      if (needed != nullptr && needed->boolean) {
        required.items.push_back(OrderedJson::of_string("body"));
      }
      has_body = true;
    }
    for (size_t open = path.find('{'); open != path.npos; open = path.find('{', open + 1)) {
      const std::string name = path.substr(open + 1, path.find('}', open) - open - 1);
      const bool known = std::ranges::any_of(parameters, [&](const Parameter& parameter) {
        return parameter.name == name && parameter.place == "path";
      });
      if (!known) fail(where, "does not say what {" + printable(name, 40) + "} is");
    }
    spec.parameters.set("type", OrderedJson::of_string("object"));
    spec.parameters.set("properties", std::move(properties));
    if (!required.items.empty()) spec.parameters.set("required", std::move(required));
    spec.parameters.set("additionalProperties", OrderedJson::of_bool(false));
    if (!definitions.members.empty()) spec.parameters.set("$defs", std::move(definitions));
    if (const std::string problem = schema_problem(spec.parameters); !problem.empty()) {
      fail(where, "cannot be a tool: " + problem);
    }
    std::string upper = method;
    for (char& c : upper) c = static_cast<char>(c - 32);
    return std::make_unique<Operation>(std::move(spec), upper, server_ + path,
                                       std::move(parameters), has_body, options_);
  }

  void add_parameter(const OrderedJson& given, const std::string& where,
                     std::vector<Parameter>& parameters, OrderedJson& properties,
                     OrderedJson& required, OrderedJson& definitions) const {
    const OrderedJson* name = given.find("name");
    const OrderedJson* place = given.find("in");
    if (name == nullptr || !name->is_string() || place == nullptr || !place->is_string()) {
      fail(where + ".parameters", "has an entry without name or in");
    }
    if (place->text == "cookie") return;  // ours are none
    if (place->text != "path" && place->text != "query" && place->text != "header") {
      fail(where + ".parameters", "has a parameter in " + printable(place->text, 20));
    }
    const OrderedJson* schema = given.find("schema");
    OrderedJson made;
    made.kind = OrderedJson::Kind::Object;
    if (schema != nullptr) made = bundled(*schema, definitions, where);
    const OrderedJson* description = given.find("description");
    if (description != nullptr && description->is_string() && made.find("$ref") == nullptr) {
      made.set("description", *description);
    }
    properties.set(name->text, std::move(made));
    const OrderedJson* needed = given.find("required");
    const bool must = place->text == "path" || (needed != nullptr && needed->boolean);
    std::erase_if(parameters, [&](const Parameter& other) { return other.name == name->text; });
    parameters.push_back({name->text, place->text, must});
    const bool listed = std::ranges::any_of(
        required.items, [&](const OrderedJson& other) { return other.text == name->text; });
    if (must && !listed) required.items.push_back(OrderedJson::of_string(name->text));
  }

  const OrderedJson& root_;
  const HttpToolOptions& options_;
  std::string source_, server_;
};

class WebSearch : public Tool {
 public:
  explicit WebSearch(WebSearchOptions options) : Tool(make_spec()), options_(std::move(options)) {}

  ToolResult call(const OrderedJson& arguments, const CallContext& context) override {
    HttpToolOptions http;
    http.addresses = options_.addresses;
    http.headers = options_.headers;
    const auto client = client_for(http);
    net::HttpCall call;
    call.path = options_.url;
    const std::string query = net::percent_encode(text_argument(arguments, "query"));
    call.path.replace(call.path.find("{query}"), 7, query);
    ToolResult result = ask(*client, std::move(call), context);
    if (result.failed) return result;
    const Json json = Json::parse(result.text, "the search engine's answer");
    Json list = json;
    for (size_t at = 0; at < options_.results.size();) {
      const size_t end = std::min(options_.results.find('.', at), options_.results.size());
      list = list.at(options_.results.substr(at, end - at));
      at = end + 1;
    }
    std::string out;
    const std::vector<Json> items = list.items();
    constexpr size_t kShown = 5;
    for (size_t i = 0; i < std::min(items.size(), kShown); ++i) {
      out += fmt::format("{}. {}\n{}\n{}\n\n", i + 1, items[i].string_or(options_.title, ""),
                         items[i].string_or(options_.link, ""),
                         items[i].string_or(options_.text, "").substr(0, 1000));
    }
    return {out.empty() ? "nothing was found" : out};
  }

 private:
  static ToolSpec make_spec() {
    ToolSpec spec;
    spec.name = "web_search";
    spec.description = "Searches the web: titles, addresses and extracts of the first results.";
    spec.parameters = object_schema(R"({"query": {"type": "string"}})", {"query"});
    spec.origin = "built in";
    return spec;
  }

  WebSearchOptions options_;
};

}  // namespace

net::AddressPolicy http_policy(const std::vector<std::string>& addresses,
                               const std::string& where) {
  net::AddressPolicy policy = net::AddressPolicy::public_only();
  for (const std::string& word : addresses) {
    if (word == "loopback") {
      policy.kinds.push_back(net::AddressKind::Loopback);
    } else if (word == "private") {
      policy.kinds.push_back(net::AddressKind::Private);
    } else if (word == "link-local") {
      policy.kinds.push_back(net::AddressKind::LinkLocal);
    } else {
      throw_bad_input(fmt::format("{}: {} is no kind of address", where, printable(word, 40)),
                      "loopback, private and link-local are known; public ones are always allowed");
    }
  }
  return policy;
}

std::vector<std::unique_ptr<Tool>> openapi_tools(const OrderedJson& description,
                                                 const HttpToolOptions& options,
                                                 const std::string& source) {
  return OpenApi(description, options, source).tools();
}

std::unique_ptr<Tool> make_web_search(const WebSearchOptions& options) {
  return std::make_unique<WebSearch>(options);
}

}  // namespace quern
