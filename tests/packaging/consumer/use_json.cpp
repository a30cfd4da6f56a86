#include <dpsgd/version.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

int main() { std::cout << nlohmann::json{{"dpsgd", dpsgd::version}} << '\n'; }
