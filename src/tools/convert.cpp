// Units of measure as fractions of the SI's, exact by their definitions (NIST SP 811, appendix B).
#include <fmt/format.h>

#include "core/ascii.h"
#include "core/error.h"
#include "tools/builtin.h"

namespace quern {
namespace {

struct Unit {
  std::string_view kind;
  std::string_view names;   // the first is the one shown
  std::string_view factor;  // an expression for calculate(): how much of the kind's base unit
};

constexpr Unit kUnits[] = {
    {"length", "m metre meter metres meters", "1"},
    {"length", "km kilometre kilometer kilometres kilometers", "1000"},
    {"length", "cm centimetre centimeter centimetres centimeters", "0.01"},
    {"length", "mm millimetre millimeter millimetres millimeters", "0.001"},
    {"length", "um µm micrometre micrometer micrometres micrometers", "0.000001"},
    {"length", "nm nanometre nanometer nanometres nanometers", "0.000000001"},
    {"length", "mi mile miles", "1609.344"},
    {"length", "yd yard yards", "0.9144"},
    {"length", "ft foot feet", "0.3048"},
    {"length", "in inch inches", "0.0254"},
    {"length", "nmi nautical_mile nautical_miles", "1852"},
    {"length", "au astronomical_unit", "149597870700"},
    {"length", "ly light_year light_years lightyear lightyears", "9460730472580800"},
    {"length", "li 里", "500"},
    {"mass", "kg kilogram kilograms kilo kilos 公斤 千克", "1"},
    {"mass", "g gram grams 克", "0.001"},
    {"mass", "mg milligram milligrams", "0.000001"},
    {"mass", "t tonne tonnes metric_ton metric_tons 吨", "1000"},
    {"mass", "lb lbs pound pounds", "0.45359237"},
    {"mass", "oz ounce ounces", "0.028349523125"},
    {"mass", "st stone stones", "6.35029318"},
    {"mass", "short_ton short_tons us_ton", "907.18474"},
    {"mass", "long_ton long_tons", "1016.0469088"},
    {"mass", "ct carat carats", "0.0002"},
    {"mass", "jin 斤", "0.5"},
    {"time", "s sec second seconds", "1"},
    {"time", "ms millisecond milliseconds", "0.001"},
    {"time", "us µs microsecond microseconds", "0.000001"},
    {"time", "ns nanosecond nanoseconds", "0.000000001"},
    {"time", "min minute minutes", "60"},
    {"time", "h hr hour hours", "3600"},
    {"time", "d day days", "86400"},
    {"time", "week weeks", "604800"},
    {"area", "m2 m^2 m² square_metre square_meter square_metres square_meters", "1"},
    {"area", "km2 km^2 km² square_kilometre square_kilometer square_kilometres", "1000000"},
    {"area", "cm2 cm^2 cm² square_centimetre square_centimeter", "0.0001"},
    {"area", "ha hectare hectares", "10000"},
    {"area", "acre acres", "4046.8564224"},
    {"area", "ft2 ft^2 ft² sqft square_foot square_feet", "0.09290304"},
    {"area", "in2 in^2 in² square_inch square_inches", "0.00064516"},
    {"area", "mi2 mi^2 mi² square_mile square_miles", "2589988.110336"},
    {"area", "mu 亩", "2000/3"},
    {"volume", "l litre liter litres liters 升", "1"},
    {"volume", "ml millilitre milliliter millilitres milliliters", "0.001"},
    {"volume", "m3 m^3 m³ cubic_metre cubic_meter cubic_metres cubic_meters", "1000"},
    {"volume", "cm3 cm^3 cm³ cc cubic_centimetre cubic_centimeter", "0.001"},
    {"volume", "gal gallon gallons us_gallon us_gallons", "3.785411784"},
    {"volume", "imperial_gallon imperial_gallons uk_gallon", "4.54609"},
    {"volume", "qt quart quarts", "0.946352946"},
    {"volume", "pt pint pints", "0.473176473"},
    {"volume", "cup cups", "0.2365882365"},
    {"volume", "floz fl_oz fluid_ounce fluid_ounces", "0.0295735295625"},
    {"volume", "tbsp tablespoon tablespoons", "0.01478676478125"},
    {"volume", "tsp teaspoon teaspoons", "0.00492892159375"},
    {"volume", "ft3 ft^3 ft³ cubic_foot cubic_feet", "28.316846592"},
    {"speed", "m/s mps metres_per_second meters_per_second", "1"},
    {"speed", "km/h kmh kph kilometres_per_hour kilometers_per_hour", "1/3.6"},
    {"speed", "mph mi/h miles_per_hour", "0.44704"},
    {"speed", "kn knot knots kt", "1852/3600"},
    {"speed", "ft/s feet_per_second", "0.3048"},
    {"pressure", "pa pascal pascals", "1"},
    {"pressure", "kpa kilopascal kilopascals", "1000"},
    {"pressure", "hpa hectopascal", "100"},
    {"pressure", "mpa megapascal megapascals", "1000000"},
    {"pressure", "bar bars", "100000"},
    {"pressure", "mbar millibar millibars", "100"},
    {"pressure", "atm atmosphere atmospheres", "101325"},
    {"pressure", "mmhg torr", "101325/760"},
    {"pressure", "psi pounds_per_square_inch", "0.45359237*9.80665/0.00064516"},
    {"energy", "j joule joules", "1"},
    {"energy", "kj kilojoule kilojoules", "1000"},
    {"energy", "cal calorie calories", "4.184"},
    {"energy", "kcal kilocalorie kilocalories", "4184"},
    {"energy", "wh watt_hour watt_hours", "3600"},
    {"energy", "kwh kilowatt_hour kilowatt_hours", "3600000"},
    {"energy", "ev electronvolt electronvolts", "1.602176634*10^-19"},
    {"energy", "btu", "1055.05585262"},
    {"power", "w watt watts", "1"},
    {"power", "kw kilowatt kilowatts", "1000"},
    {"power", "megawatt megawatts", "1000000"},
    {"power", "hp horsepower", "550*0.3048*0.45359237*9.80665"},
    {"force", "n newton newtons", "1"},
    {"force", "kilonewton kilonewtons", "1000"},
    {"force", "lbf pound_force", "0.45359237*9.80665"},
    {"force", "kgf kilogram_force", "9.80665"},
    {"data", "bit bits", "1/8"},
    {"data", "b byte bytes", "1"},
    {"data", "kb kilobyte kilobytes", "1000"},
    {"data", "mb megabyte megabytes", "10^6"},
    {"data", "gb gigabyte gigabytes", "10^9"},
    {"data", "tb terabyte terabytes", "10^12"},
    {"data", "kib kibibyte kibibytes", "2^10"},
    {"data", "mib mebibyte mebibytes", "2^20"},
    {"data", "gib gibibyte gibibytes", "2^30"},
    {"data", "tib tebibyte tebibytes", "2^40"},
    {"angle", "deg degree degrees °", "pi/180"},
    {"angle", "rad radian radians", "1"},
    {"angle", "grad gradian gradians gon", "pi/200"},
    {"angle", "turn turns revolution revolutions", "2*pi"},
    {"frequency", "hz hertz", "1"},
    {"frequency", "khz kilohertz", "1000"},
    {"frequency", "mhz megahertz", "10^6"},
    {"frequency", "ghz gigahertz", "10^9"},
    {"frequency", "rpm revolutions_per_minute", "1/60"},
    {"fuel economy", "km/l kilometres_per_litre kilometers_per_liter", "1"},
    {"fuel economy", "mpg miles_per_gallon", "1.609344/3.785411784"},
    // Kelvin of these are affine: see below.
    {"temperature", "k kelvin kelvins", ""},
    {"temperature", "c celsius °c degree_celsius degrees_celsius centigrade", ""},
    {"temperature", "f fahrenheit °f degree_fahrenheit degrees_fahrenheit", ""},
    {"temperature", "r rankine °r", ""},
};

constexpr std::string_view kCurrencies =
    " usd eur gbp jpy cny rmb chf cad aud inr krw rub brl mxn sek nok dkk pln hkd sgd dollar "
    "dollars "
    "euro euros pound_sterling yen yuan rupee rupees franc francs won $ € £ ¥ ";

std::string lower(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '.')) text.remove_suffix(1);
  std::string out;
  for (const char c : text) {
    out += c == ' ' || c == '-' ? '_' : ascii_lower(c);
  }
  return out;
}

std::string_view first_name(const Unit& unit) { return unit.names.substr(0, unit.names.find(' ')); }

bool has_name(const Unit& unit, const std::string& name) {
  const std::string all = fmt::format(" {} ", unit.names);
  return all.find(" " + name + " ") != std::string::npos;
}

const Unit& unit_of(std::string_view given) {
  const std::string name = lower(given);
  if (name.empty()) throw_bad_input("a unit is missing");
  if (kCurrencies.find(fmt::format(" {} ", name)) != std::string_view::npos) {
    throw_bad_input(
        fmt::format("{} is a currency, whose rate this tool does not know", printable(given, 40)));
  }
  std::vector<std::string_view> known;
  for (const Unit& unit : kUnits) {
    if (has_name(unit, name)) return unit;
    for (size_t at = 0; at < unit.names.size();) {
      const size_t end = std::min(unit.names.find(' ', at), unit.names.size());
      known.push_back(unit.names.substr(at, end - at));
      at = end + 1;
    }
  }
  const std::string guess = name.size() > 2 ? nearest(name, known) : std::string();
  throw_bad_input(fmt::format("the unit {} is not known", printable(given, 40)),
                  guess.empty() ? "" : fmt::format("did you mean {}?", guess));
}

// Kelvin of (x) in a scale, and back.
std::string to_kelvin(std::string_view scale, const std::string& x) {
  if (scale == "c") return fmt::format("({}) + 273.15", x);
  if (scale == "f") return fmt::format("(({}) + 459.67) * 5 / 9", x);
  if (scale == "r") return fmt::format("({}) * 5 / 9", x);
  return x;
}
std::string from_kelvin(std::string_view scale, const std::string& x) {
  if (scale == "c") return fmt::format("({}) - 273.15", x);
  if (scale == "f") return fmt::format("({}) * 9 / 5 - 459.67", x);
  if (scale == "r") return fmt::format("({}) * 9 / 5", x);
  return x;
}

class ConvertTool : public Tool {
 public:
  ConvertTool() : Tool(make_spec()) {}
  ToolResult call(const OrderedJson& arguments, const CallContext&) override {
    const OrderedJson* value = arguments.find("value");
    return {convert_units(value == nullptr ? OrderedJson() : *value,
                          text_argument(arguments, "from"), text_argument(arguments, "to"))};
  }

 private:
  static ToolSpec make_spec() {
    ToolSpec spec;
    spec.name = "convert";
    spec.description =
        "Converts a value between units of length, mass, time, area, volume, speed, temperature, "
        "pressure, energy, power, force, data, angle or frequency. No currencies.";
    spec.parameters = object_schema(
        R"({"value": {"type": "number"}, "from": {"type": "string", "description": "unit, as mi"},
            "to": {"type": "string", "description": "unit, as km"}})",
        {"value", "from", "to"});
    spec.timeout_s = 5;
    spec.origin = "built in";
    spec.examples.push_back(
        {"How many kilometres are 26 miles?",
         OrderedJson::parse(R"({"value": 26, "from": "mi", "to": "km"})", "an example"),
         "41.842944 km", "41.842944 km"});
    return spec;
  }
};

}  // namespace

std::string convert_units(const OrderedJson& value, std::string_view from, std::string_view to) {
  const bool number = value.is(OrderedJson::Kind::Float) || value.is(OrderedJson::Kind::Integer);
  if (!number) throw_bad_input("the value is no number");
  const std::string x = python_dumps(value);
  const Unit& source = unit_of(from);
  const Unit& target = unit_of(to);
  if (source.kind != target.kind) {
    throw_bad_input(fmt::format("{} is a unit of {}, {} one of {}", first_name(source), source.kind,
                                first_name(target), target.kind));
  }
  std::string result;
  if (source.kind == "temperature") {
    const std::string kelvin = to_kelvin(first_name(source), x);
    if (calculate(kelvin).starts_with('-')) {
      throw_bad_input("the temperature lies below absolute zero");
    }
    result = calculate(from_kelvin(first_name(target), kelvin));
  } else {
    result = calculate(fmt::format("({}) * ({}) / ({})", x, source.factor, target.factor));
  }
  const std::string given = lower(to);
  return fmt::format("{} {}", result, has_name(target, given) ? std::string(to) : given);
}

std::unique_ptr<Tool> make_convert() { return std::make_unique<ConvertTool>(); }

}  // namespace quern
