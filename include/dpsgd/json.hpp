/// Umbrella of what needs nlohmann-json: schemas from JSON files. Stands beside dpsgd.hpp.
#pragma once

#include "dpsgd/data/schema_json.hpp"
