#include <dpsgd/core/random.hpp>
#include <dpsgd/version.hpp>
#include <iostream>

int main() {
  dpsgd::random_words words({dpsgd::random_key::from_seed(1)});
  std::cout << "dpsgd " << dpsgd::version << " drew " << words.uniform() << '\n';
}
