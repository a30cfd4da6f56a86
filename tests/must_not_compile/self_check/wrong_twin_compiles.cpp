// EXPECT: anything
int main() {}
